#include "quant/scale.hpp"

#include <algorithm>
#include <cmath>

#include "base/lines.hpp"

namespace nearly::quant {

kernels::Grid grid(int bits, float product, float square, int left_out) {
  // As many fine steps as leave room for magnitudes four times as large as the largest code, and 64 at most.
  const int shift = std::clamp(14 - bits, 3, 6);
  return {std::ldexp(1.0f, -left_out), static_cast<float>((1 << (bits - left_out - 1)) - 1), product, square,
          std::ldexp(1.0f, shift), std::ldexp(1.0f, -shift)};
}

Fit fit(const float* a, const std::vector<kernels::Grid>& grids, float scale) {
  float sums[2];
  kernels::active().sweep(a, grids.size(), scale, grids.data(), sums);
  return {scale, sums[0], sums[1]};
}

namespace {

struct Tried {
  float scale, quality;
};

// The best of n scales around one, `apart` from each other as shares of it, and of `best`: by fine steps.
Tried best_around(const int16_t* a, const std::vector<kernels::Grid>& grids, float middle, size_t n, float apart, Tried best) {
  float scales[kernels::kTries], sums[2 * kernels::kTries];
  for (size_t i = 0; i < n; ++i)
    scales[i] = middle * (1.0f + apart * (static_cast<float>(i) - 0.5f * static_cast<float>(n - 1)));
  kernels::active().tries(a, grids.size(), scales, n, grids.data(), sums);
  for (size_t i = 0; i < n; ++i) {
    const float quality = Fit{scales[i], sums[2 * i], sums[2 * i + 1]}.quality();
    best.scale = quality > best.quality ? scales[i] : best.scale;
    best.quality = std::max(best.quality, quality);
  }
  return best;
}

// The scale where errors of rounding and of clipping are least together: a convex function of its inverse whose slope is
// concave, so that Newton's steps come from one side.
float balanced(const int16_t* a, const std::vector<kernels::Grid>& grids) {
  constexpr int kSteps = 16;  // at most; four or five are usual
  constexpr float kUsual = 0.8f, kSmall = 0.5f, kEnough = 3e-3f;
  float inverse = kUsual;
  for (int step = 0; step < kSteps; ++step) {
    float sums[2];
    kernels::active().clipped(a, grids.size(), inverse, grids.data(), sums);
    const float before = inverse;
    if (sums[0] > 0) {
      inverse = sums[0] / sums[1];
      if (std::fabs(inverse - before) < kEnough * before) break;
    } else {  // nothing is clipped
      inverse = kSmall;
      if (before <= kSmall) break;
    }
  }
  return 1.0f / inverse;
}

}  // namespace

// Rounding is not quite as even as the balance of errors takes it to be, so scales around that are tried.
Fit choose_scale(const float* a, const std::vector<kernels::Grid>& grids, int rounds) {
  constexpr float kSame = 1e-4f;  // hardly a code changes: that of the finest steps
  thread_local Lines<int16_t> fine;
  fine.resize(grids.size() * 64);
  kernels::active().fine_steps(a, grids.size(), grids.data(), fine.data());
  const float middle = balanced(fine.data(), grids);
  const Tried near = best_around(fine.data(), grids, middle, 5, 0.03f, {middle, -1.0f});
  Fit best = fit(a, grids, best_around(fine.data(), grids, near.scale, 4, 0.007f, near).scale);
  for (int round = 0; round < rounds && best.product > 0; ++round) {
    const float fitting = best.square / best.product;
    if (std::fabs(fitting - best.scale) < kSame * best.scale) break;
    const Fit adjusted = fit(a, grids, fitting);
    if (!(adjusted.quality() > best.quality())) break;
    best = adjusted;
  }
  return best;
}

}  // namespace nearly::quant
