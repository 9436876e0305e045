#include "quant/principal.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/block.hpp"

namespace nearly::quant {
namespace {

// Four partial sums in a fixed order.
double dot(const double* a, const double* b, size_t n) {
  double s[4] = {};
  size_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (size_t i = 0; i < 4; ++i) s[i] += a[j + i] * b[j + i];
  for (; j < n; ++j) s[0] += a[j] * b[j];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

uint64_t next(uint64_t& state) {  // splitmix64
  uint64_t z = (state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Gram-Schmidt, twice for accuracy; a row that vanishes is drawn anew.
void orthonormalize(std::vector<double>& rows, size_t n, size_t d, uint64_t& state, const Poll& poll) {
  for (size_t i = 0; i < n; ++i) {
    double* x = rows.data() + i * d;
    poll_if_due(poll);
    for (int tries = 0;; ++tries) {
      const double before = std::sqrt(dot(x, x, d));
      for (int pass = 0; pass < 2; ++pass)
        for (size_t k = 0; k < i; ++k) {
          const double* y = rows.data() + k * d;
          const double c = dot(x, y, d);
          for (size_t j = 0; j < d; ++j) x[j] -= c * y[j];
        }
      const double norm = std::sqrt(dot(x, x, d));
      if (norm > 1e-10 * before && norm > 0) {
        for (size_t j = 0; j < d; ++j) x[j] /= norm;
        break;
      }
      for (size_t j = 0; j < d; ++j) x[j] = static_cast<double>(next(state) >> 11) * 0x1p-53 - 0.5;
      if (tries > 20) break;  // n > d cannot be asked for; never reached
    }
  }
}

// rows * covariance (symmetric): n rows of d, in float, which is plenty for a direction that is normalized next.
std::vector<double> multiply(const std::vector<double>& rows, size_t n, const float* covariance, size_t d,
                             const Poll& poll) {
  const std::vector<float> narrow(rows.begin(), rows.end());
  std::vector<float> out(n * d);
  kernels::multiply(narrow.data(), n, covariance, d, d, out.data(), 0, poll);
  return {out.begin(), out.end()};
}

// Cyclic Jacobi on a small symmetric matrix; vectors' rows become its eigenvectors.
void jacobi(std::vector<double>& a, std::vector<double>& vectors, size_t n, const Poll& poll) {
  vectors.assign(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) vectors[i * n + i] = 1.0;
  double total = 0;
  for (const double x : a) total += x * x;
  for (int sweep = 0; sweep < 12; ++sweep) {
    double off = 0;
    for (size_t p = 0; p < n; ++p)
      for (size_t q = p + 1; q < n; ++q) off += a[p * n + q] * a[p * n + q];
    if (off <= 1e-18 * total) return;
    for (size_t p = 0; p < n; ++p) {
      poll_if_due(poll);
      for (size_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        if (apq * apq <= 1e-24 * total / static_cast<double>(n * n)) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1.0 : -1.0) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (size_t k = 0; k < n; ++k) {  // rows p and q, then the columns by symmetry
          const double x = a[p * n + k], y = a[q * n + k];
          a[p * n + k] = c * x - s * y;
          a[q * n + k] = s * x + c * y;
        }
        for (size_t k = 0; k < n; ++k) {
          const double x = a[k * n + p], y = a[k * n + q];
          a[k * n + p] = c * x - s * y;
          a[k * n + q] = s * x + c * y;
          const double u = vectors[p * n + k], v = vectors[q * n + k];
          vectors[p * n + k] = c * u - s * v;
          vectors[q * n + k] = s * u + c * v;
        }
      }
    }
  }
}

}  // namespace

void principal_axes(const float* covariance, size_t d, size_t n_axes, size_t rounds, uint64_t seed, double* axes,
                    double* variances, const Poll& poll) {
  // A few more directions than asked for: they speed up the last ones wanted.
  const size_t n = std::min(d, n_axes + std::max<size_t>(8, n_axes / 8));
  uint64_t state = seed;
  std::vector<double> basis(n * d);
  for (double& x : basis) x = static_cast<double>(next(state) >> 11) * 0x1p-53 - 0.5;
  orthonormalize(basis, n, d, state, poll);
  if (n < d)
    for (size_t round = 0; round < rounds; ++round) {
      basis = multiply(basis, n, covariance, d, poll);
      orthonormalize(basis, n, d, state, poll);
    }
  const std::vector<double> image = multiply(basis, n, covariance, d, poll);
  std::vector<double> inner(n * n), rotation;
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) inner[i * n + j] = dot(basis.data() + i * d, image.data() + j * d, d);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < i; ++j) inner[i * n + j] = inner[j * n + i] = (inner[i * n + j] + inner[j * n + i]) / 2;
  jacobi(inner, rotation, n, poll);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return inner[x * n + x] > inner[y * n + y]; });
  for (size_t i = 0; i < n_axes; ++i) {
    double* out = axes + i * d;
    std::fill(out, out + d, 0.0);
    for (size_t k = 0; k < n; ++k)
      for (size_t j = 0; j < d; ++j) out[j] += rotation[order[i] * n + k] * basis[k * d + j];
    // A sign of its own: the entry of largest magnitude is positive.
    const double* top = std::max_element(out, out + d, [](double x, double y) { return std::fabs(x) < std::fabs(y); });
    if (*top < 0)
      for (size_t j = 0; j < d; ++j) out[j] = -out[j];
    variances[i] = inner[order[i] * n + order[i]];
  }
}

}  // namespace nearly::quant
