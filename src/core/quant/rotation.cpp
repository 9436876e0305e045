#include "quant/rotation.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/table.hpp"

namespace nearly::quant {
namespace {

// Orthonormal and symmetric, so its own inverse; n is a power of two.
void hadamard(float* x, size_t n) {
  for (size_t step = 1; step < n; step *= 2)
    for (size_t first = 0; first < n; first += 2 * step)
      for (size_t i = first; i < first + step; ++i) {
        const float a = x[i], b = x[i + step];
        x[i] = a + b;
        x[i + step] = a - b;
      }
  const float scale = 1.0f / std::sqrt(static_cast<float>(n));
  for (size_t i = 0; i < n; ++i) x[i] *= scale;
}

}  // namespace

std::vector<uint64_t> Rotation::draw(size_t dim, uint64_t seed) {
  std::vector<uint64_t> signs(n_words(dim));
  for (uint64_t& word : signs) {  // splitmix64
    uint64_t z = (seed += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    word = z ^ (z >> 31);
  }
  return signs;
}

void Rotation::rotate(float* x) const { kernels::active().rotate(x, signs_.data(), size()); }

void Rotation::apply(const float* x, float* out) const {
  std::copy_n(x, dim_, out);
  std::fill(out + dim_, out + size(), 0.0f);
  rotate(out);
}

// The kernel's four rounds, last first.
void Rotation::invert(const float* x, float* out) const {
  const size_t n = size();
  size_t power = 64;
  while (power * 2 <= n) power *= 2;
  std::vector<float> y(x, x + n);
  for (size_t round = 4; round-- > 0;) {
    if (power != n)
      for (size_t i = 0; i < n / 2; ++i) {
        const float scale = round % 2 ? 1.0f : 0.5f;
        const float a = y[i] * scale, b = y[n / 2 + i] * scale;
        y[i] = a + b;
        y[n / 2 + i] = a - b;
      }
    hadamard(y.data() + (round % 2 ? n - power : 0), power);
    const uint64_t* signs = signs_.data() + round * (n / 64);
    for (size_t i = 0; i < n; ++i)
      if (signs[i / 64] >> (i % 64) & 1) y[i] = -y[i];
  }
  std::copy_n(y.data(), dim_, out);
}

}  // namespace nearly::quant
