// One bit a dimension: on which side of the center a vector lies. Distances are the numbers of bits that differ, which
// grow with the angle about the center (Charikar, STOC 2002).
#pragma once
#include <memory>
#include <vector>

#include "quant/coded.hpp"
#include "quant/form.hpp"

namespace nearly::quant {

class Binary final : public Coded {
 public:
  // center, levels: form.input_dim() floats; a decoded vector lies a dimension's level beside the center.
  Binary(Form form, std::vector<float> center, std::vector<float> levels, std::shared_ptr<Table> rows);
  static size_t row_bytes(const Form& form) { return (form.input_dim() + 63) / 64 * 8; }

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override;  // input_dim floats

  size_t prepared_bytes() const override { return rows_->stride(); }
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;

 private:
  void pack(const float* x, bool centered, uint8_t* out) const;
  // <q, x> is <q, center> + <q, x - center>: of a query the direction itself counts then.
  bool centers_query() const { return form_.metric != Metric::kDot; }

  Form form_;
  std::vector<float> center_, levels_;
};

}  // namespace nearly::quant
