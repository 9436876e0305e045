// Codes that stand for the vectors, which are nowhere: scores in the metric's own unit of comparison, that of Plain.
#pragma once
#include <memory>
#include <utility>

#include "base/metric.hpp"
#include "quant/coded.hpp"

namespace nearly::quant {

// Codes compare by squared distance under cosine, where |q - x|^2 = 2 (1 - <q, x>) of unit vectors, and under ip where rows
// were lengthened to one norm: there it is |q|^2 + norm_bound^2 - 2 <q, x>.
class Alone final : public Scorer {
 public:
  Alone(std::shared_ptr<Coded> codes, Metric metric, float norm_bound)
      : codes_(std::move(codes)), metric_(metric), norm_bound_(norm_bound) {}

  size_t n_rows() const override { return codes_->n_rows(); }
  size_t n_bytes() const override { return codes_->n_bytes(); }
  size_t query_bytes() const override { return codes_->query_bytes(); }
  size_t prepared_bytes() const override { return kHeader + codes_->prepared_bytes(); }
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;
  void prefetch(const Row* rows, size_t n) const override { codes_->prefetch(rows, n); }

 private:
  static constexpr size_t kHeader = 64;  // a line of its own
  struct Unit {
    float factor, origin;  // the metric's own distance is factor * score + origin
  };
  static void to_unit(const Unit& unit, size_t n, float* out) {
    for (size_t i = 0; i < n; ++i) out[i] = unit.factor * out[i] + unit.origin;
  }
  const uint8_t* inner(const void* prepared) const { return static_cast<const uint8_t*>(prepared) + kHeader; }

  std::shared_ptr<Coded> codes_;
  Metric metric_;
  float norm_bound_;
};

}  // namespace nearly::quant
