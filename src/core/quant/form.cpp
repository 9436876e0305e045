#include "quant/form.hpp"

#include <algorithm>
#include <cmath>

#include "quant/plain.hpp"

namespace nearly::quant {

float sum_of_squares(const float* x, size_t n) {
  float part[4] = {};
  size_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (size_t i = 0; i < 4; ++i) part[i] += x[j + i] * x[j + i];
  for (; j < n; ++j) part[0] += x[j] * x[j];
  return (part[0] + part[2]) + (part[1] + part[3]);
}

void Form::row(const float* x, float* out) const {
  std::copy(x, x + dim, out);
  if (lengthened()) out[dim] = std::sqrt(std::max(0.0f, norm_bound * norm_bound - sum_of_squares(x, dim)));
}

void Form::query(const float* x, float* out) const {
  float scale = 1.0f;
  if (metric == Metric::kCosine) {
    const float squares = sum_of_squares(x, dim);
    const bool whole = squares > 1e-30f && squares < 1e30f;  // neither left out nor overflowed in part
    scale = whole ? 1.0f / std::sqrt(squares) : inverse_norm(x, dim);
  }
  for (size_t j = 0; j < dim; ++j) out[j] = x[j] * scale;
  if (lengthened()) out[dim] = 0.0f;
}

}  // namespace nearly::quant
