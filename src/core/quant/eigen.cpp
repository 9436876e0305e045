#include "quant/eigen.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nearly::quant {
namespace {

constexpr size_t kRows = 8;          // rows of the transformation that share the loads of a reflector
constexpr size_t kColumns = 32;      // columns that one task rotates: n * 32 doubles stay in the second cache
constexpr size_t kWait = size_t{1} << 19;  // rotations that are kept before they are applied

// row -= a * x + b * y, then <row, z>: one pass over the matrix for each column that becomes tridiagonal.
double update_and_dot(double* row, const double* x, double a, const double* y, double b, const double* z, size_t n) {
  double s[4] = {};
  size_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (size_t i = 0; i < 4; ++i) {
      row[j + i] -= a * x[j + i] + b * y[j + i];
      s[i] += row[j + i] * z[j + i];
    }
  for (; j < n; ++j) {
    row[j] -= a * x[j] + b * y[j];
    s[0] += row[j] * z[j];
  }
  return (s[0] + s[1]) + (s[2] + s[3]);
}

double dot(const double* x, const double* y, size_t n) {
  double s[4] = {};
  size_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (size_t i = 0; i < 4; ++i) s[i] += x[j + i] * y[j + i];
  for (; j < n; ++j) s[0] += x[j] * y[j];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// A reflection I - factor * v v' that leaves of x its first entry alone, which is returned; v takes the place of x.
double reflect(double* x, size_t n, double* factor) {
  const double rest = dot(x + 1, x + 1, n - 1);
  *factor = 0;
  if (rest < 1e-140) return x[0];  // what rounding left of a matrix of low rank: (2 / rest)^2 may be infinite
  const double length = std::sqrt(x[0] * x[0] + rest), left = x[0] > 0 ? -length : length;
  x[0] -= left;
  *factor = 2 / (x[0] * x[0] + rest);
  return left;
}

// The tridiagonal matrix that is left of `a`, whose rows then hold the reflectors right of the diagonal.
struct Tridiagonal {
  std::vector<double> diagonal, beside, factor;
};

Tridiagonal tridiagonalize(std::vector<double>& a, size_t n, size_t threads, const Poll& poll) {
  Tridiagonal t{std::vector<double>(n), std::vector<double>(n), std::vector<double>(n)};
  // What the last reflection still subtracts from the rest of the matrix: v w' + w v'.
  std::vector<double> v(n), w(n), p(n);
  for (size_t k = 0; k < n; ++k) {
    double* row = a.data() + k * n;
    for (size_t j = k; j < n; ++j) row[j] -= v[k] * w[j] + w[k] * v[j];
    t.diagonal[k] = row[k];
    if (k + 1 == n) break;
    const size_t first = k + 1, rest = n - first;
    t.beside[k] = reflect(row + first, rest, &t.factor[k]);
    parallel_for(rest, std::max<size_t>(16, 65536 / rest), threads, [&](size_t begin, size_t end) {
      for (size_t i = first + begin; i < first + end; ++i)
        p[i] = update_and_dot(a.data() + i * n + first, w.data() + first, v[i], v.data() + first, w[i], row + first, rest);
    }, poll);
    const double f = t.factor[k], half = f * f * dot(p.data() + first, row + first, rest) / 2;
    for (size_t j = first; j < n; ++j) {
      v[j] = row[j];
      w[j] = f * p[j] - half * v[j];
    }
    poll_if_due(poll);
  }
  return t;
}

// The transpose of the product of all reflections.
std::vector<double> transformation(const std::vector<double>& a, size_t n, const Tridiagonal& t, size_t threads,
                                   const Poll& poll) {
  std::vector<double> q(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) q[i * n + i] = 1;
  parallel_for(n, kRows, threads, [&](size_t begin, size_t end) {
    for (size_t k = end - 1; k-- > 0;) {
      const double *v = a.data() + k * n + k + 1, f = t.factor[k];
      for (size_t i = std::max(begin, k + 1); i < end; ++i) {
        double* row = q.data() + i * n + k + 1;
        const double c = f * dot(row, v, n - k - 1);
        for (size_t j = 0; j < n - k - 1; ++j) row[j] -= c * v[j];
      }
    }
  }, poll);
  return q;
}

// Rotations of neighboring rows, kept until there are enough of them to be applied to all columns by many threads.
class Rotations {
 public:
  Rotations(std::vector<double>& rows, size_t n, size_t threads, const Poll& poll)
      : rows_(rows), n_(n), threads_(threads), poll_(poll) {}
  // The next rotations act on rows first and first + 1, then one further down each time.
  void begin(size_t first) {
    if (cosines_.size() >= kWait) apply();
    sweeps_.push_back({first, cosines_.size()});
  }
  void add(double cosine, double sine) {
    cosines_.push_back(cosine);
    sines_.push_back(sine);
  }
  void apply() {
    sweeps_.push_back({0, cosines_.size()});
    parallel_for((n_ + kColumns - 1) / kColumns, 1, threads_, [&](size_t begin, size_t end) {
      std::vector<double> columns(n_ * kColumns, 0.0);
      for (size_t b = begin; b < end; ++b) {
        const size_t at = b * kColumns, width = std::min(kColumns, n_ - at);
        for (size_t i = 0; i < n_; ++i) std::copy_n(rows_.data() + i * n_ + at, width, columns.data() + i * kColumns);
        rotate(columns.data());
        for (size_t i = 0; i < n_; ++i) std::copy_n(columns.data() + i * kColumns, width, rows_.data() + i * n_ + at);
      }
    }, poll_);
    sweeps_.clear();
    cosines_.clear();
    sines_.clear();
  }

 private:
  struct Sweep {
    size_t row, begin;
  };

  void rotate(double* columns) const {
    for (size_t s = 0; s + 1 < sweeps_.size(); ++s) {
      double* x = columns + sweeps_[s].row * kColumns;
      for (size_t r = sweeps_[s].begin; r < sweeps_[s + 1].begin; ++r, x += kColumns) {
        const double c = cosines_[r], t = sines_[r];
        for (size_t j = 0; j < kColumns; ++j) {
          const double upper = x[j], lower = x[kColumns + j];
          x[j] = c * upper + t * lower;
          x[kColumns + j] = c * lower - t * upper;
        }
      }
    }
  }

  std::vector<double>& rows_;
  const size_t n_, threads_;
  const Poll& poll_;
  std::vector<Sweep> sweeps_;
  std::vector<double> cosines_, sines_;
};

// One implicit QR step on rows first..last of the tridiagonal matrix, whose entries beside the diagonal are not 0.
void qr_step(Tridiagonal& t, size_t first, size_t last, Rotations& rotations) {
  double *d = t.diagonal.data(), *e = t.beside.data();
  const double half = (d[last - 1] - d[last]) / 2, b = e[last - 1];
  const double shift = d[last] - b * (b / (half + std::copysign(std::sqrt(half * half + b * b), half)));
  double x = d[first] - shift, z = e[first];
  rotations.begin(first);
  for (size_t k = first; k < last; ++k) {
    const double r = std::sqrt(x * x + z * z), c = r > 0 ? x / r : 1, s = r > 0 ? z / r : 0;
    rotations.add(c, s);
    if (k > first) e[k - 1] = r;
    const double upper = d[k], lower = d[k + 1], between = e[k];
    const double moved = s * (s * (lower - upper) + 2 * c * between);
    d[k] = upper + moved;
    d[k + 1] = lower - moved;
    e[k] = c * s * (lower - upper) + (c - s) * (c + s) * between;
    if (k + 1 == last) break;
    x = e[k];
    z = s * e[k + 1];
    e[k + 1] *= c;
  }
}

void diagonalize(Tridiagonal& t, size_t n, Rotations& rotations, const Poll& poll) {
  double norm = 0;
  for (size_t i = 0; i < n; ++i) norm = std::max(norm, std::fabs(t.diagonal[i]) + std::fabs(t.beside[i]));
  const double small = norm * std::numeric_limits<double>::epsilon();
  const auto split = [&](size_t i) {
    if (std::fabs(t.beside[i]) <= small) t.beside[i] = 0;
    return t.beside[i] == 0;
  };
  if (!std::isfinite(norm)) return;  // sums that overflowed: there is nothing to be found
  // Two steps for each eigenvalue are usual; the limit only keeps a fault from running for ever.
  size_t steps = 30 * n;
  for (size_t last = n - 1; last > 0 && steps > 0;) {
    if (split(last - 1)) {
      --last;
      continue;
    }
    size_t first = last - 1;
    while (first > 0 && !split(first - 1)) --first;
    qr_step(t, first, last, rotations);
    --steps;
    poll_if_due(poll);
  }
}

}  // namespace

std::vector<double> eigenvectors(std::vector<double>& a, size_t n, std::vector<double>& values, size_t threads,
                                 const Poll& poll) {
  Tridiagonal t = tridiagonalize(a, n, threads, poll);
  std::vector<double> rows = transformation(a, n, t, threads, poll);
  Rotations rotations(rows, n, threads, poll);
  diagonalize(t, n, rotations, poll);
  rotations.apply();
  values = std::move(t.diagonal);
  return rows;
}

}  // namespace nearly::quant
