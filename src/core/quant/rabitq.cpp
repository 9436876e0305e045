#include "quant/rabitq.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/table.hpp"

namespace nearly::quant {

// The distance is constant + add - weight * scale * <z, v>, z being the rotated query.
struct RaBitQ::Factors {
  float add;                       // |r|^2; of products: -<r, center>
  float scale, error;              // |r|^2 / <r, v>; epsilon standard deviations of the estimate of <q, r> for |q| = 1
  float first_scale, first_error;  // of the signs alone, where there are further bits
};

// z is about step * (64 * coarse + fine), or step * coarse where there are few bits and fine is not needed.
struct RaBitQ::Query {
  float constant;
  float weight;  // 2 * step of squared distances, step of products
  float width;   // of bounds: 2 |z| or |z|
  int32_t coarse_sum;
  int64_t sum;
  alignas(64) int8_t coarse[1];
};

namespace {

constexpr size_t kBlock = 64;     // rows scored together; their sums wait on the stack
constexpr size_t kFirst = 12;     // bytes of the factors of 1 bit
constexpr size_t kFactors = 20;   // of more
constexpr float kLimit = 63;      // see kernels::Table::packed
constexpr int kFineBits = 5;      // from which on seven bits for the query would be the larger error
constexpr float kFineLimit = 63 * 64 + 31;

// Steps of the best uniform quantizers of a normal variable, for 1 to 8 bits (Max, IRE Transactions 1960): the sweep
// looks for a vector's own step around them.
constexpr float kSteps[9] = {0, 1.596f, 0.9957f, 0.586f, 0.3352f, 0.1881f, 0.1041f, 0.0569f, 0.0308f};

bool fine(int bits) { return bits >= kFineBits; }

// x[0, 64) as codes of `bits` bits, at most 7, in the layout of kernels::Table::packed.
void pack_unit(const uint8_t* x, int bits, uint8_t* out) {
  if (bits & 4) {
    const int low = bits & 3;
    for (size_t i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>((x[i] >> low) | (x[32 + i] >> low) << 4);
    out += 32;
  }
  if (bits & 2) {
    const int low = bits & 1;
    for (size_t i = 0; i < 16; ++i)
      out[i] = static_cast<uint8_t>((x[i] >> low & 3) | (x[16 + i] >> low & 3) << 2 | (x[32 + i] >> low & 3) << 4 |
                                    (x[48 + i] >> low & 3) << 6);
    out += 16;
  }
  if (bits & 1) {
    for (size_t i = 0; i < 8; ++i) {
      uint64_t eight;
      std::memcpy(&eight, x + i * 8, 8);
      out[i] = static_cast<uint8_t>((eight & 0x0101010101010101ull) * 0x0102040810204080ull >> 56);  // bit 8j to 56 + j
    }
  }
}

void unpack_unit(const uint8_t* in, int bits, uint8_t* x) {
  std::memset(x, 0, 64);
  if (bits & 4) {
    for (size_t i = 0; i < 64; ++i) x[i] = static_cast<uint8_t>(in[i % 32] >> (i / 32 * 4) & 15);
    in += 32;
  }
  if (bits & 2) {
    for (size_t i = 0; i < 64; ++i) x[i] = static_cast<uint8_t>(x[i] << 2 | (in[i % 16] >> (i / 16 * 2) & 3));
    in += 16;
  }
  if (bits & 1)
    for (size_t i = 0; i < 64; ++i) x[i] = static_cast<uint8_t>(x[i] << 1 | (in[i / 8] >> (i % 8) & 1));
}

double dot(const float* a, const float* b, size_t n) {
  double part[4] = {};
  for (size_t j = 0; j < n; j += 4)  // n is a multiple of 64, or b is padded
    for (size_t i = 0; i < 4; ++i) part[i] += static_cast<double>(a[j + i]) * b[j + i];
  return (part[0] + part[2]) + (part[1] + part[3]);
}

float to_float(double x) { return static_cast<float>(std::min<double>(x, std::numeric_limits<float>::max())); }

}  // namespace

RaBitQ::RaBitQ(RaBitQSpec spec, std::shared_ptr<Table> rows)
    : Coded(spec.dim, spec.input_dim(), std::move(rows)), spec_(std::move(spec)) {
  size_ = spec_.rotation.size();
  units_ = size_ / 64;
  signs_ = spec_.bits == 1 ? kFirst : kFactors;
  further_ = signs_ + units_ * 8;
  center_square_ = sum_of_squares(spec_.center.data(), spec_.center.size());
}

size_t RaBitQ::row_bytes(const RaBitQSpec& spec) {
  const size_t bytes = (spec.bits == 1 ? kFirst : kFactors) + Rotation::padded(spec.input_dim()) / 8 * spec.bits;
  return (bytes + 31) / 32 * 32;
}

size_t RaBitQ::prepared_bytes() const { return sizeof(Query) + size_ * (fine(spec_.bits) ? 2 : 1) + 64; }

// -- coding ------------------------------------------------------------------------------------------------------------

// The scale whose codes of the magnitudes a (of unit length) point in the direction of a: eight scales around the best one
// for normal variables, then eight around the best of these, and again. Loses about a hundredth of 1 - cos^2 against trying
// all scales at which a code changes (SIGMOD 2025, section 3.2), which costs 2^bits times as much.
RaBitQ::Fit RaBitQ::choose_scale(const float* a) const {
  const kernels::Table& k = kernels::active();
  const auto top = static_cast<float>((1 << (spec_.bits - 1)) - 1);
  const float usual = std::sqrt(static_cast<float>(size_)) / kSteps[spec_.bits];
  const float unclipped = (top + 1.0f) / *std::max_element(a, a + size_);  // the largest scale that clips nothing
  float low = (spec_.bits < 7 ? 0.75f : 0.85f) * usual;
  if (spec_.bits >= 5) low = std::min(low, 0.8f * unclipped);
  const float high = std::max(1.2f * usual, unclipped);
  constexpr int kTries = 8, kRounds = 3;
  Fit best{usual, 1, 1};
  float quality = -1.0f, step = (high - low) / (kTries - 1);
  for (int round = 0; round < kRounds; ++round) {
    const float from = low;
    for (int i = 0; i < kTries; ++i) {
      const float scale = from + step * static_cast<float>(i);
      float sums[2];
      k.sweep(a, size_, scale, top, sums);
      if (sums[0] * sums[0] / sums[1] <= quality) continue;
      quality = sums[0] * sums[0] / sums[1];
      best = {scale, sums[0], sums[1]};
    }
    step *= 2.0f / kTries;
    low = best.scale - step * (0.5f * (kTries - 1));
  }
  return best;
}

void RaBitQ::pack(const float* residual, const float* a, float scale, uint8_t* row) const {
  const int further = spec_.bits - 1;
  const auto top = static_cast<float>((1 << further) - 1);
  const auto mask = static_cast<uint8_t>((1 << further) - 1);
  uint8_t sign[64], code[64];
  for (size_t u = 0; u < units_; ++u) {
    for (size_t i = 0; i < 64; ++i) sign[i] = residual[u * 64 + i] > 0;
    pack_unit(sign, 1, row + signs_ + u * 8);
    if (further == 0) continue;
    for (size_t i = 0; i < 64; ++i) {
      const auto k = static_cast<uint8_t>(static_cast<int>(std::min(a[u * 64 + i] * scale, top)));
      code[i] = sign[i] ? k : k ^ mask;
    }
    pack_unit(code, further, row + further_ + u * static_cast<size_t>(further) * 8);
  }
}

// residual: rotated, size_ floats. with_center: <r, center>, for products.
void RaBitQ::encode(const float* residual, double with_center, uint8_t* row) const {
  std::memset(row, 0, rows_->stride());
  const double square = dot(residual, residual, size_), norm = std::sqrt(square);
  Factors f{spec_.product() ? static_cast<float>(-with_center) : to_float(square), 0, 0, 0, 0};
  if (norm > 0) {
    thread_local std::vector<float> a;
    a.resize(size_);
    const double inverse = 1.0 / norm;
    for (size_t j = 0; j < size_; ++j) a[j] = static_cast<float>(std::fabs(residual[j]) * inverse);
    float sums[2];
    kernels::active().sweep(a.data(), size_, 1.0f, 0.0f, sums);  // signs: |v| is one half everywhere
    const Fit signs{1.0f, sums[0], sums[1]}, all = spec_.bits == 1 ? signs : choose_scale(a.data());
    pack(residual, a.data(), all.scale, row);
    const auto factors = [&](const Fit& fit, float* scale, float* error) {
      const double product = fit.product, sine = std::max(0.0, fit.square / (product * product) - 1.0);
      *scale = to_float(norm / product);
      *error = to_float(norm * spec_.epsilon * std::sqrt(sine / static_cast<double>(size_ - 1)));
    };
    factors(all, &f.scale, &f.error);
    if (spec_.bits > 1) factors(signs, &f.first_scale, &f.first_error);
  }
  std::memcpy(row, &f, signs_);
}

void RaBitQ::fill(size_t first, const float* vectors, size_t n) {
  std::vector<float> residual(size_);
  const size_t inputs = spec_.input_dim();
  for (size_t i = 0; i < n; ++i) {
    spec_.row(vectors + i * spec_.dim, residual.data());
    for (size_t j = 0; j < inputs; ++j) residual[j] -= spec_.center[j];
    double with_center = 0;
    if (spec_.product())
      for (size_t j = 0; j < inputs; ++j) with_center += static_cast<double>(residual[j]) * spec_.center[j];
    std::fill(residual.begin() + static_cast<ptrdiff_t>(inputs), residual.end(), 0.0f);
    spec_.rotation.rotate(residual.data());
    encode(residual.data(), with_center, rows_->row(first + i));
  }
}

// v of a row: code - (2^bits - 1) / 2.
void RaBitQ::decode_codes(const uint8_t* row, float* v) const {
  const int further = spec_.bits - 1;
  const float middle = static_cast<float>((1 << spec_.bits) - 1) / 2;
  uint8_t sign[64], code[64] = {};
  for (size_t u = 0; u < units_; ++u) {
    unpack_unit(row + signs_ + u * 8, 1, sign);
    if (further) unpack_unit(row + further_ + u * static_cast<size_t>(further) * 8, further, code);
    for (size_t i = 0; i < 64; ++i) v[u * 64 + i] = static_cast<float>(sign[i] << further | code[i]) - middle;
  }
}

// v times what makes it the nearest to r that it can be, <r, v> / |v|^2; returns |r|^2.
float RaBitQ::shrunk(const uint8_t* row, float* v) const {
  const Factors& f = factors(row);
  decode_codes(row, v);
  const double square = dot(v, v, size_), scale = f.scale;
  // From the two factors: error^2 = epsilon^2 (scale^2 |v|^2 - |r|^2) / (n - 1).
  const double sigma = f.error / spec_.epsilon, long_square = scale * scale * square;
  const double norm_square = std::max(0.0, long_square - sigma * sigma * static_cast<double>(size_ - 1));
  const double factor = scale > 0 ? norm_square / (scale * square) : 0.0;
  for (size_t j = 0; j < size_; ++j) v[j] = static_cast<float>(v[j] * factor);
  return static_cast<float>(norm_square);
}

void RaBitQ::decode(Row row, float* out) const {
  std::vector<float> v(size_);
  shrunk(rows_->row(row), v.data());
  spec_.rotation.invert(v.data(), out);
  for (size_t j = 0; j < spec_.input_dim(); ++j) out[j] += spec_.center[j];
}

// -- queries -----------------------------------------------------------------------------------------------------------

// z: the rotated query about the center.
void RaBitQ::quantize(const float* z, float constant, Query* out) const {
  const kernels::Table& k = kernels::active();
  const float factor = spec_.product() ? 1.0f : 2.0f;
  out->constant = constant;
  out->width = factor * std::sqrt(sum_of_squares(z, size_));
  out->coarse_sum = 0;
  out->sum = 0;
  if (!fine(spec_.bits)) {
    out->weight = factor * k.quantize8(z, size_, kLimit, out->coarse);
    for (size_t j = 0; j < size_; ++j) out->coarse_sum += out->coarse[j];
    out->sum = out->coarse_sum;
    return;
  }
  thread_local std::vector<int16_t> whole;
  whole.resize(size_);
  out->weight = factor * k.quantize16(z, size_, kFineLimit, whole.data());
  int8_t* low = out->coarse + size_;
  for (size_t j = 0; j < size_; ++j) {
    const int high = (whole[j] + 32) >> 6;
    out->coarse[j] = static_cast<int8_t>(high);
    low[j] = static_cast<int8_t>(whole[j] - high * 64);
    out->coarse_sum += high;
    out->sum += whole[j];
  }
}

// With o = center + r: |q - o|^2 = |q - center|^2 + |r|^2 - 2 <q - center, r>, and
// <q, o> = <q, center> + <center, r> + <q - center, r>.
void RaBitQ::prepare(const void* query, void* prepared) const {
  thread_local std::vector<float> z;
  z.resize(size_);
  spec_.query(static_cast<const float*>(query), z.data());
  const size_t inputs = spec_.input_dim();
  float with_center = 0;
  for (size_t j = 0; j < inputs; ++j) {
    with_center += z[j] * spec_.center[j];
    z[j] -= spec_.center[j];
  }
  std::fill(z.begin() + static_cast<ptrdiff_t>(inputs), z.end(), 0.0f);
  const float constant = spec_.product() ? -with_center : sum_of_squares(z.data(), inputs);
  spec_.rotation.rotate(z.data());
  quantize(z.data(), constant, static_cast<Query*>(prepared));
}

// The row asks by what is nearest to it of the lengths that its code may have, so that it is at distance 0 to itself and the
// distance to another one follows from the angle between their codes.
void RaBitQ::prepare_row(Row row, void* prepared) const {
  thread_local std::vector<float> z;
  z.resize(size_);
  const uint8_t* from = rows_->row(row);
  shrunk(from, z.data());
  const float add = factors(from).add;
  quantize(z.data(), spec_.product() ? add - center_square_ : add, static_cast<Query*>(prepared));
}

// -- comparing ---------------------------------------------------------------------------------------------------------

void RaBitQ::score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound,
                         float* out) const {
  const kernels::Table& k = kernels::active();
  const size_t stride = rows_->stride();
  const int further = spec_.bits - 1;
  const bool is_fine = fine(spec_.bits);
  const double middle = static_cast<double>((1 << spec_.bits) - 1) / 2 * static_cast<double>(query.sum);
  const float coarse_middle = 0.5f * static_cast<float>(query.coarse_sum);
  const float first_weight = is_fine ? 64.0f * query.weight : query.weight;
  int32_t signs[kBlock], more[kBlock], low_signs[kBlock], low_more[kBlock];
  Row left[kBlock];
  uint8_t place[kBlock];
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    const uint8_t* first = rows ? base : base + i * stride;
    const Row* some = rows ? rows + i : nullptr;
    const auto at = [&](size_t r) { return first + (some ? some[r] : r) * stride; };
    k.packed[0](query.coarse, first + signs_, stride, some, block, units_, signs);
    if (further == 0) {
      for (size_t r = 0; r < block; ++r) {
        const Factors& f = factors(at(r));
        out[i + r] = query.constant + f.add - query.weight * f.scale * (static_cast<float>(signs[r]) - coarse_middle);
      }
      continue;
    }
    size_t n_left = 0;
    for (size_t r = 0; r < block; ++r) {
      const Factors& f = factors(at(r));
      const float estimate =
          query.constant + f.add - first_weight * f.first_scale * (static_cast<float>(signs[r]) - coarse_middle);
      const float least = estimate - f.first_error * query.width;
      out[i + r] = least;
      left[n_left] = some ? some[r] : static_cast<Row>(r);
      place[n_left] = static_cast<uint8_t>(r);
      n_left += !(least > bound);
    }
    if (n_left == 0) continue;
    const auto& kernel = k.packed[further - 1];
    kernel(query.coarse, first + further_, stride, left, n_left, units_, more);
    if (is_fine) {
      const int8_t* low = query.coarse + size_;
      kernel(low, first + further_, stride, left, n_left, units_, low_more);
      k.packed[0](low, first + signs_, stride, left, n_left, units_, low_signs);
    }
    for (size_t r = 0; r < n_left; ++r) {
      const Factors& f = factors(first + left[r] * stride);
      int64_t sum = (static_cast<int64_t>(signs[place[r]]) << further) + more[r];
      if (is_fine) sum = 64 * sum + (static_cast<int64_t>(low_signs[r]) << further) + low_more[r];
      const auto product = static_cast<float>(static_cast<double>(sum) - middle);
      out[i + place[r]] = query.constant + f.add - query.weight * f.scale * product;
    }
  }
}

void RaBitQ::score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const {
  score_block(*static_cast<const Query*>(prepared), rows_->data(), rows, n, bound, out);
}

void RaBitQ::score_range(const void* prepared, Row first, size_t n, float* out) const {
  score_block(*static_cast<const Query*>(prepared), rows_->row(first), nullptr, n, std::numeric_limits<float>::infinity(),
              out);
}

void RaBitQ::errors(const void* prepared, const Row* rows, size_t n, float* out) const {
  const float width = static_cast<const Query*>(prepared)->width;
  for (size_t i = 0; i < n; ++i) out[i] = width * factors(rows_->row(rows[i])).error;
}

}  // namespace nearly::quant
