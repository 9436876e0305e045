#include "quant/map.hpp"

#include <algorithm>

#include "quant/plain.hpp"

namespace nearly::quant {

void Map::add_leading(size_t n) {
  steps_.push_back({Step::Kind::kLeading, outputs_, n, nullptr, {}, {}});
  outputs_ = n;
}

void Map::add_unit() { steps_.push_back({Step::Kind::kUnit, outputs_, outputs_, nullptr, {}, {}}); }

void Map::add_affine(const float* matrix, std::vector<float> offset) {
  const size_t n = offset.size();
  auto columns = std::make_unique<kernels::Packed>(matrix, n, outputs_);
  steps_.push_back({Step::Kind::kAffine, outputs_, n, std::move(columns), std::move(offset), {}});
  outputs_ = n;
}

void Map::add_rotation(Rotation rotation) {
  const size_t n = rotation.size();
  steps_.push_back({Step::Kind::kRotation, outputs_, n, nullptr, {}, std::move(rotation)});
  outputs_ = n;
}

void Map::take(const Step& step, const float* x, size_t n, bool with_offset, float* out) {
  const size_t from = step.inputs, to = step.outputs;
  switch (step.kind) {
    case Step::Kind::kLeading:
      for (size_t i = 0; i < n; ++i) std::copy_n(x + i * from, to, out + i * to);
      return;
    case Step::Kind::kUnit:
      for (size_t i = 0; i < n; ++i) {
        const float scale = inverse_norm(x + i * from, from);
        for (size_t j = 0; j < from; ++j) out[i * from + j] = x[i * from + j] * scale;
      }
      return;
    case Step::Kind::kRotation:
      for (size_t i = 0; i < n; ++i) step.rotation.apply(x + i * from, out + i * to);
      return;
    case Step::Kind::kAffine: {
      const size_t width = step.matrix->width();
      thread_local std::vector<float> tile;
      tile.resize(n * width);
      for (size_t p = 0; p * width < to; ++p) {
        step.matrix->multiply(x, n, p, tile.data());
        const size_t first = p * width, count = std::min(width, to - first);
        for (size_t i = 0; i < n; ++i)
          for (size_t j = 0; j < count; ++j)
            out[i * to + first + j] = tile[i * width + j] - (with_offset ? step.offset[first + j] : 0.0f);
      }
    }
  }
}

void Map::apply(const float* x, size_t n, bool with_offset, float* out) const {
  thread_local std::vector<float> here, next;
  here.assign(x, x + n * inputs_);
  for (const Step& step : steps_) {
    next.resize(n * step.outputs);
    take(step, here.data(), n, with_offset, next.data());
    here.swap(next);
  }
  std::copy_n(here.data(), n * outputs_, out);
}

}  // namespace nearly::quant
