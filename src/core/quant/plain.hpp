// Vectors as they came, in their own element type: exact distances, the store that re-ranks.
#pragma once
#include <memory>

#include "base/metric.hpp"
#include "base/scorer.hpp"
#include "kernels/table.hpp"

namespace nearly::quant {

// 1 / |x|, and 0 where no float holds it: shorter than 3e-39 is the zero vector under cosine. The one place where norms are
// taken, for rows and for queries: equal vectors get equal bits.
float inverse_norm(const float* x, size_t dim);

class Plain : public Scorer, public WideningScorer {
 public:
  // `rows`: row_bytes(...) bytes each. Bits count dim in bytes and use the element uint8.
  Plain(std::shared_ptr<Table> rows, kernels::Element element, Metric metric, size_t dim);

  static size_t element_bytes(kernels::Element e);
  // Elements, then 1 / norm as a float under cosine.
  static size_t row_bytes(kernels::Element e, Metric metric, size_t dim);

  // Copies n vectors (row-major, dense) to rows [first, first + n), which exist.
  virtual void fill(size_t first, const void* vectors, size_t n);
  // Rows as dim floats each, for encoders: under cosine of unit length. Not for bits.
  virtual void decode(const Row* rows, size_t n, float* out) const;
  void decode(Row row, float* out) const { decode(&row, 1, out); }
  // A query as floats in the metric's form: unit length under cosine, zero stays zero.
  void to_form(const float* query, float* out) const;

  size_t dim() const { return dim_; }
  Metric metric() const { return metric_; }
  kernels::Element element() const { return element_; }
  // The bytes of a row, which lie in the table or are put into `room`, of row_bytes().
  virtual const uint8_t* bytes(Row row, uint8_t* room) const { return (void)room, rows_->row(row); }
  virtual bool borrowed() const { return rows_->borrowed(); }
  const std::shared_ptr<Table>& rows() const { return rows_; }  // null where they lie in a file

  size_t n_rows() const override { return rows_->rows(); }
  size_t n_bytes() const override { return rows_->n_bytes(); }
  size_t query_bytes() const override { return is_bits(metric_) ? dim_ : dim_ * 4; }
  size_t prepared_bytes() const override { return 64 + dim_ * 4 + 64; }
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;
  void prefetch(const Row* rows, size_t n) const override;
  size_t widened_bytes() const override;
  void widen_rows(const Row* rows, size_t n, void* out) const override;
  void score_widened(const void* prepared, const void* rows, size_t n, float* out) const override;

 protected:
  size_t row_bytes() const { return row_bytes(element_, metric_, dim_); }
  // A vector as a row, and back.
  void encode_row(const void* vector, uint8_t* row, float* wide) const;
  void decode_row(const uint8_t* row, float* out) const;
  // As score, of n rows at `data`: those of some numbers, or the first ones.
  void compare(const void* prepared, const uint8_t* data, const Row* rows, size_t n, float* out) const;
  size_t vector_bytes() const { return dim_ * element_bytes(element_); }

 private:
  struct Query;
  void prepare_floats(const float* query, Query* out) const;

  std::shared_ptr<Table> rows_;
  kernels::Element element_;
  Metric metric_;
  size_t dim_;
};

}  // namespace nearly::quant
