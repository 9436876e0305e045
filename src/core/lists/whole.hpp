// Vectors as whole numbers of 16 bits, and what their products may be off by.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/table.hpp"

namespace nearly::lists {

// Vectors become whole numbers of about this length: a product of two fits 32 bits and each element 16.
constexpr double kReach = 32700;
// Lengths that are resolved, so that no float overflows on the way: shorter vectors are rounded as coarsely as the
// shortest, longer ones are left to the scorer.
constexpr double kShortest = 1e-13, kLongest = 1e15;

// A vector v, about the center, as whole numbers V: v = step * V + an error no longer than step * the spread of its kind.
struct Whole {
  double squared, step;  // |v|^2
  float inverse;         // 1 / step
  bool usable;           // else V is 0
};

// How vectors become whole numbers.
class Rounding {
 public:
  explicit Rounding(size_t dim) : center_(dim, 0.0f), spread_(0.51 * std::sqrt(static_cast<double>(dim))) {}
  // Seen from the mean of n vectors, products are as small as distances. The origin stays the center where most of the
  // vectors lie nearer to it (one of them is far away), or where the mean is not a number.
  void center_on(const float* vectors, size_t n) {
    std::vector<double> sums(center_.size(), 0.0);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < sums.size(); ++j) sums[j] += vectors[i * sums.size() + j];
    size_t nearer = 0;  // to the mean than to the origin
    for (size_t i = 0; i < n; ++i) {
      double gain = 0;  // |x|^2 - |x - mean|^2
      for (size_t j = 0; j < sums.size(); ++j) {
        const double mean = sums[j] / static_cast<double>(n);
        gain += mean * (2.0 * vectors[i * sums.size() + j] - mean);
      }
      nearer += gain > 0;
    }
    if (2 * nearer <= n) return;
    for (size_t j = 0; j < sums.size(); ++j) center_[j] = static_cast<float>(sums[j] / static_cast<double>(n));
  }
  Whole round(float* v, int16_t* out) const {
    const kernels::Table& kernel = kernels::active();
    Whole w{};
    w.squared = kernel.center(v, center_.data(), center_.size());
    const double length = std::sqrt(w.squared);
    w.usable = length <= kLongest;
    w.inverse = static_cast<float>(kReach / std::max(kShortest, length));
    w.step = 1.0 / static_cast<double>(w.inverse);
    if (w.usable)
      kernel.round16(v, center_.size(), w.inverse, out);
    else
      std::fill_n(out, center_.size(), int16_t{0});
    return w;
  }
  // |<q, x> - step_q * step_x * <Q, X>| <= step_q * step_x * error(): Cauchy-Schwarz, as |v| <= kReach * step; and what a
  // product may lose as a float.
  double error() const { return spread_ * (2.001 * kReach + spread_) + 256; }

 private:
  std::vector<float> center_;
  double spread_;
};

}  // namespace nearly::lists
