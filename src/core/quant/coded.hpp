// What scorers over coded rows have in common: rows of codes are made from floats, and floats from rows.
#pragma once
#include <memory>
#include <utility>

#include "base/scorer.hpp"

namespace nearly::quant {

class Coded : public Scorer {
 public:
  // dim: floats of a vector and of a query. dims: floats of a decoded row, in whatever space was coded.
  Coded(size_t dim, size_t dims, std::shared_ptr<Table> rows) : rows_(std::move(rows)), dim_(dim), dims_(dims) {}

  size_t dim() const { return dim_; }
  size_t dims() const { return dims_; }
  const std::shared_ptr<Table>& rows() const { return rows_; }

  // Encodes n vectors (dim floats each, unit length under cosine) into rows [first, first + n), which exist. A row's code
  // depends on its vector alone.
  virtual void fill(size_t first, const float* vectors, size_t n) = 0;
  virtual void decode(Row row, float* out) const = 0;  // dims floats

  size_t n_rows() const final { return rows_->rows(); }
  size_t n_bytes() const override { return rows_->n_bytes(); }
  size_t query_bytes() const final { return dim_ * 4; }
  void prefetch(const Row* rows, size_t n) const override;

 protected:
  std::shared_ptr<Table> rows_;
  size_t first_bytes_ = ~size_t{0};  // of a row, which are read of all: no more are asked for ahead

 private:
  size_t dim_, dims_;
};

// Codes whose estimates come with bounds, each of which holds with a probability that its width says.
class Bounded : public Coded {
 public:
  using Coded::Coded;
  // Makes the bounds of a prepared query `times` as wide as the codes have them.
  virtual void widen(void* prepared, float times) const = 0;
  // out[i] = a bound below the distance of row first + i, in the metric's own unit of comparison (that of quant::Plain).
  // Above `bound` any value above it will do.
  virtual void lower(const void* prepared, Row first, size_t n, float bound, float* out) const = 0;
  // Half-widths of the bounds around scores, in the unit of scores.
  virtual void errors(const void* prepared, const Row* rows, size_t n, float* out) const = 0;
};

}  // namespace nearly::quant
