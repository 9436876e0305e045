#include "quant/principal.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/block.hpp"
#include "quant/eigen.hpp"

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

constexpr size_t kBlock = 16;  // rows that are made orthogonal to all before them side by side

// x loses its parts along rows [begin, end), twice for accuracy.
void project_out(double* x, const double* rows, size_t begin, size_t end, size_t d) {
  for (int pass = 0; pass < 2; ++pass)
    for (size_t k = begin; k < end; ++k) {
      const double* y = rows + k * d;
      const double c = dot(x, y, d);
      for (size_t j = 0; j < d; ++j) x[j] -= c * y[j];
    }
}

// Gram-Schmidt; a row that vanishes is drawn anew.
void orthonormalize(std::vector<double>& rows, size_t n, size_t d, uint64_t& state, size_t threads, const Poll& poll) {
  std::vector<double> before(n);
  for (size_t i = 0; i < n; ++i) before[i] = std::sqrt(dot(rows.data() + i * d, rows.data() + i * d, d));
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t last = std::min(n, first + kBlock);
    parallel_for(last - first, 1, threads, [&](size_t begin, size_t end) {
      for (size_t i = first + begin; i < first + end; ++i) project_out(rows.data() + i * d, rows.data(), 0, first, d);
    }, poll);
    for (size_t i = first; i < last; ++i) {
      double* x = rows.data() + i * d;
      for (size_t from = first, tries = 0;; from = 0, ++tries) {
        project_out(x, rows.data(), from, i, d);
        const double norm = std::sqrt(dot(x, x, d));
        if (norm > 1e-10 * before[i] && norm > 0) {
          for (size_t j = 0; j < d; ++j) x[j] /= norm;
          break;
        }
        if (tries > 20) break;  // more rows than dimensions cannot be asked for; never reached
        for (size_t j = 0; j < d; ++j) x[j] = static_cast<double>(next(state) >> 11) * 0x1p-53 - 0.5;
        before[i] = std::sqrt(dot(x, x, d));
      }
    }
    poll_if_due(poll);
  }
}

// rows * covariance (symmetric): n rows of d, in float, which is plenty for a direction that is normalized next.
std::vector<double> multiply(const std::vector<double>& rows, size_t n, const float* covariance, size_t d, size_t threads,
                             const Poll& poll) {
  const std::vector<float> narrow(rows.begin(), rows.end());
  std::vector<float> out(n * d);
  kernels::multiply(narrow.data(), n, covariance, d, d, out.data(), threads, poll);
  return {out.begin(), out.end()};
}

// n orthonormal rows that span nearly what the leading eigenvectors span.
std::vector<double> leading_subspace(const float* covariance, size_t d, size_t n, size_t rounds, uint64_t seed,
                                     size_t threads, const Poll& poll) {
  uint64_t state = seed;
  std::vector<double> basis(n * d);
  for (double& x : basis) x = static_cast<double>(next(state) >> 11) * 0x1p-53 - 0.5;
  orthonormalize(basis, n, d, state, threads, poll);
  for (size_t round = 0; round < rounds; ++round) {
    basis = multiply(basis, n, covariance, d, threads, poll);
    orthonormalize(basis, n, d, state, threads, poll);
  }
  return basis;
}

// The covariance as the rows of a basis see it.
std::vector<double> seen_from(const std::vector<double>& basis, size_t n, const float* covariance, size_t d,
                              size_t threads, const Poll& poll) {
  const std::vector<double> image = multiply(basis, n, covariance, d, threads, poll);
  std::vector<double> inner(n * n);
  parallel_for(n, kBlock, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      for (size_t j = 0; j < n; ++j)
        inner[i * n + j] = dot(basis.data() + i * d, image.data() + j * d, d);
  }, poll);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < i; ++j) inner[i * n + j] = inner[j * n + i] = (inner[i * n + j] + inner[j * n + i]) / 2;
  return inner;
}

}  // namespace

void principal_axes(const float* covariance, size_t d, size_t n_axes, size_t rounds, uint64_t seed, double* axes,
                    double* variances, size_t threads, const Poll& poll) {
  // A few more directions than asked for: they speed up the last ones wanted. From a quarter of all on, iterating costs more
  // than finding all the eigenvectors there are (measured on 784 dimensions: 0.4 s each).
  size_t n = n_axes + std::max<size_t>(8, n_axes / 8);
  const bool all = 4 * n >= d;
  if (all) n = d;
  std::vector<double> basis, inner, found;
  if (all) {
    inner.assign(covariance, covariance + d * d);
    for (size_t i = 0; i < d; ++i)
      for (size_t j = 0; j < i; ++j) inner[i * d + j] = inner[j * d + i] = (inner[i * d + j] + inner[j * d + i]) / 2;
  } else {
    basis = leading_subspace(covariance, d, n, rounds, seed, threads, poll);
    inner = seen_from(basis, n, covariance, d, threads, poll);
  }
  const std::vector<double> rotation = eigenvectors(inner, n, found, threads, poll);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return found[x] > found[y]; });
  parallel_for(n_axes, 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      double* out = axes + i * d;
      const double* weights = rotation.data() + order[i] * n;
      std::fill(out, out + d, 0.0);
      if (all) std::copy_n(weights, d, out);
      for (size_t k = 0; !all && k < n; ++k)
        for (size_t j = 0; j < d; ++j) out[j] += weights[k] * basis[k * d + j];
      // A sign of its own: the entry of largest magnitude is positive.
      const double* top = std::max_element(out, out + d, [](double x, double y) { return std::fabs(x) < std::fabs(y); });
      if (*top < 0)
        for (size_t j = 0; j < d; ++j) out[j] = -out[j];
      variances[i] = found[order[i]];
    }
  }, poll);
}

}  // namespace nearly::quant
