#include "quant/alone.hpp"

#include "quant/form.hpp"

namespace nearly::quant {

void Alone::prepare(const void* query, void* prepared) const {
  const size_t dim = codes_->dim();
  auto* unit = static_cast<Unit*>(prepared);
  *unit = {1.0f, 0.0f};
  if (metric_ == Metric::kCosine) unit->factor = 0.5f;
  if (metric_ == Metric::kDot && norm_bound_ > 0)
    *unit = {0.5f, -0.5f * (sum_of_squares(static_cast<const float*>(query), dim) + norm_bound_ * norm_bound_)};
  codes_->prepare(query, static_cast<uint8_t*>(prepared) + kHeader);
}

// Of stored codes only the order counts: they compare with each other.
void Alone::prepare_row(Row row, void* prepared) const {
  *static_cast<Unit*>(prepared) = {metric_ == Metric::kCosine ? 0.5f : 1.0f, 0.0f};
  codes_->prepare_row(row, static_cast<uint8_t*>(prepared) + kHeader);
}

void Alone::score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const {
  const Unit unit = *static_cast<const Unit*>(prepared);
  codes_->score(inner(prepared), rows, n, (bound - unit.origin) / unit.factor, out);
  to_unit(unit, n, out);
}

void Alone::score_range(const void* prepared, Row first, size_t n, float* out) const {
  const Unit unit = *static_cast<const Unit*>(prepared);
  codes_->score_range(inner(prepared), first, n, out);
  to_unit(unit, n, out);
}

}  // namespace nearly::quant
