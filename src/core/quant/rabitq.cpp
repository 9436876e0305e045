#include "quant/rabitq.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/lines.hpp"
#include "kernels/table.hpp"
#include "quant/packed.hpp"
#include "quant/scale.hpp"

namespace nearly::quant {

// The distance is constant + add - weight * scale * <z, v>, z being the rotated query.
struct RaBitQ::Factors {
  float add;                       // |r|^2; of products: -<r, center>
  float scale, error;              // |r|^2 / <r, v>; epsilon standard deviations of the estimate of <q, r> for |q| = 1
  float first_scale, first_error;  // of the leading bits alone, where there are further ones
};

// z is about step * coarse, or step * (64 * coarse + low) where that is too rough; low comes after coarse.
struct RaBitQ::Query {
  float constant;
  float weight;  // 2 * step of squared distances, step of products
  float width;   // of bounds: 2 |z| or |z|
  float unit, origin;  // the metric's own distance is unit * distance + origin
  int32_t coarse_sum, sum;  // of the whole numbers
  bool fine;
  alignas(64) int8_t coarse[1];
};

namespace {

constexpr size_t kBlock = 64;     // rows scored together; their sums wait on the stack
constexpr size_t kFirst = 12;     // bytes of the factors without further bits
constexpr size_t kFactors = 20;   // with them
constexpr int kRounds = 6;        // of adjusting codes

}  // namespace

RaBitQ::RaBitQ(RaBitQSpec spec, std::shared_ptr<Table> rows)
    : Bounded(spec.dim, spec.input_dim(), std::move(rows)), spec_(std::move(spec)) {
  size_ = spec_.rotation.size();
  units_ = size_ / 64;
  lead_bits_ = std::min(spec_.bits, kLead);
  further_bits_ = spec_.bits - lead_bits_;
  lead_ = further_bits_ == 0 ? kFirst : kFactors;
  first_bytes_ = further_ = lead_ + units_ * 8 * static_cast<size_t>(lead_bits_);
  grids_.assign(units_, grid(spec_.bits, 1.0f, 1.0f));
  first_grids_.assign(units_, grid(spec_.bits, 1.0f, 1.0f, further_bits_));
  center_square_ = sum_of_squares(spec_.center.data(), spec_.center.size());
}

size_t RaBitQ::row_bytes(const RaBitQSpec& spec) {
  const size_t bytes = (spec.bits <= kLead ? kFirst : kFactors) + Rotation::padded(spec.input_dim()) / 8 * spec.bits;
  return (bytes + 31) / 32 * 32;
}

size_t RaBitQ::prepared_bytes() const { return sizeof(Query) + size_ * (spec_.bits >= kFineBits ? 2 : 1) + 64; }

// -- coding ------------------------------------------------------------------------------------------------------------

// residual: rotated, size_ floats. square: |r|^2, which a rotation leaves. with_center: <r, center>, for products.
void RaBitQ::encode(const float* residual, double square, double with_center, uint8_t* row) const {
  std::memset(row, 0, rows_->stride());
  const double norm = std::sqrt(square);
  Factors f{spec_.product() ? static_cast<float>(-with_center) : to_float(square), 0, 0, 0, 0};
  const double step = kSteps[spec_.bits] / std::sqrt(static_cast<double>(size_));
  const auto inverse = static_cast<float>(1.0 / (norm * step));
  if (norm < std::numeric_limits<double>::infinity() && inverse < std::numeric_limits<float>::infinity()) {
    thread_local Lines<float> a;
    a.resize(size_);
    kernels::active().magnitudes(residual, size_, inverse, a.data());
    const Fit all = spec_.bits == 1 ? fit(a.data(), grids_, 1.0f) : choose_scale(a.data(), grids_, kRounds);
    kernels::active().cut(a.data(), reinterpret_cast<const int32_t*>(residual), units_, all.scale, lead_bits_, further_bits_,
                          row + lead_, row + further_);
    const auto factors = [&](const Fit& of, float* scale, float* error) {
      const double product = of.product, sine = std::max(0.0, of.square / (product * product * step * step) - 1.0);
      *scale = to_float(norm / (product * step));
      *error = to_float(norm * spec_.epsilon * std::sqrt(sine / static_cast<double>(size_ - 1)));
    };
    factors(all, &f.scale, &f.error);
    if (further_bits_ > 0) factors(fit(a.data(), first_grids_, all.scale), &f.first_scale, &f.first_error);
  }
  std::memcpy(row, &f, lead_);
}

void RaBitQ::fill(size_t first, const float* vectors, size_t n) {
  Lines<float> residual(size_);
  const size_t inputs = spec_.input_dim();
  for (size_t i = 0; i < n; ++i) {
    spec_.row(vectors + i * spec_.dim, residual.data());
    const double square = kernels::active().center(residual.data(), spec_.center.data(), inputs);
    double with_center = 0;
    if (spec_.product())
      for (size_t j = 0; j < inputs; ++j) with_center += static_cast<double>(residual[j]) * spec_.center[j];
    std::fill(residual.begin() + static_cast<ptrdiff_t>(inputs), residual.end(), 0.0f);
    spec_.rotation.rotate(residual.data());
    encode(residual.data(), square, with_center, rows_->row(first + i));
  }
}

// 2 v of a row: 2 * code - (2^bits - 1). Returns |v|^2.
double RaBitQ::decode_codes(const uint8_t* row, int16_t* v) const {
  const int top = (1 << spec_.bits) - 1;
  uint8_t lead[64], further[64] = {};
  uint64_t square = 0;
  for (size_t u = 0; u < units_; ++u) {
    unpack_unit(row + lead_ + u * static_cast<size_t>(lead_bits_) * 8, lead_bits_, lead);
    if (further_bits_ > 0) unpack_unit(row + further_ + u * static_cast<size_t>(further_bits_) * 8, further_bits_, further);
    int32_t sum = 0;
    for (size_t i = 0; i < 64; ++i) {
      const int twice = 2 * (lead[i] << further_bits_ | further[i]) - top;
      v[u * 64 + i] = static_cast<int16_t>(twice);
      sum += twice * twice;
    }
    square += static_cast<uint64_t>(sum);
  }
  return 0.25 * static_cast<double>(square);
}

// <r, v> / |v|^2: what makes v the nearest to r that it can be. From the two factors, the other one being
// error^2 = epsilon^2 (scale^2 |v|^2 - |r|^2) / (n - 1).
double RaBitQ::nearest_length(const uint8_t* row, double square) const {
  const Factors& f = factors(row);
  if (!(f.scale > 0)) return 0.0;
  const double scale = f.scale, sigma = f.error / spec_.epsilon;
  const double norm_square = scale * scale * square - sigma * sigma * static_cast<double>(size_ - 1);
  return std::max(0.0, norm_square) / (scale * square);
}

void RaBitQ::decode(Row row, float* out) const {
  std::vector<int16_t> v(size_);
  std::vector<float> rotated(size_);
  const double length = 0.5 * nearest_length(rows_->row(row), decode_codes(rows_->row(row), v.data()));
  for (size_t j = 0; j < size_; ++j) rotated[j] = static_cast<float>(v[j] * length);
  spec_.rotation.invert(rotated.data(), out);
  for (size_t j = 0; j < spec_.input_dim(); ++j) out[j] += spec_.center[j];
}

// -- queries -----------------------------------------------------------------------------------------------------------

// A query that is `step` times these whole numbers, of size |z|, about the center.
void RaBitQ::digits(const int16_t* whole, bool fine, float step, float norm, float constant, Query* out) const {
  const float factor = spec_.product() ? 1.0f : 2.0f;
  *out = {constant, factor * step, factor * norm, 1.0f, 0.0f, 0, 0, fine, {}};
  const Digits made = split(whole, size_, fine, out->coarse, out->coarse + size_);
  out->coarse_sum = made.coarse_sum;
  out->sum = made.sum;
}

// With o = center + r: |q - o|^2 = |q - center|^2 + |r|^2 - 2 <q - center, r>, and
// <q, o> = <q, center> + <center, r> + <q - center, r>.
void RaBitQ::prepare(const void* query, void* prepared) const {
  thread_local std::vector<float> z;
  z.resize(size_);
  spec_.query(static_cast<const float*>(query), z.data());
  const size_t inputs = spec_.input_dim();
  const float square = sum_of_squares(z.data(), inputs);
  float with_center = 0;
  for (size_t j = 0; j < inputs; ++j) {
    with_center += z[j] * spec_.center[j];
    z[j] -= spec_.center[j];
  }
  std::fill(z.begin() + static_cast<ptrdiff_t>(inputs), z.end(), 0.0f);
  const float constant = spec_.product() ? -with_center : sum_of_squares(z.data(), inputs);
  spec_.rotation.rotate(z.data());
  thread_local std::vector<int16_t> whole;
  whole.resize(size_);
  const bool fine = spec_.bits >= kFineBits;
  const float step = kernels::active().quantize16(z.data(), size_, fine ? kFineLimit : kCoarseLimit, whole.data());
  auto* out = static_cast<Query*>(prepared);
  digits(whole.data(), fine, step, std::sqrt(sum_of_squares(z.data(), size_)), constant, out);
  if (spec_.metric == Metric::kCosine) out->unit = 0.5f;  // |q - o|^2 = 2 (1 - <q, o>) of unit vectors
  if (spec_.lengthened()) {  // |q - o|^2 = |q|^2 + norm_bound^2 - 2 <q, o>
    out->unit = 0.5f;
    out->origin = -0.5f * (square + spec_.norm_bound * spec_.norm_bound);
  }
}

// The row asks by its code, at the length that is nearest to r: so it is at distance 0 to itself, and the distance to
// another one follows from the angle between their codes.
void RaBitQ::prepare_row(Row row, void* prepared) const {
  thread_local std::vector<int16_t> v;
  v.resize(size_);
  const uint8_t* from = rows_->row(row);
  const double square = decode_codes(from, v.data()), length = nearest_length(from, square);
  const float add = factors(from).add, constant = spec_.product() ? add - center_square_ : add;
  const bool fine = (1 << spec_.bits) - 1 > static_cast<int>(kCoarseLimit);
  digits(v.data(), fine, static_cast<float>(0.5 * length), static_cast<float>(length * std::sqrt(square)), constant,
         static_cast<Query*>(prepared));
}

// -- comparing ---------------------------------------------------------------------------------------------------------

void RaBitQ::score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound,
                         float* out) const {
  const kernels::Table& k = kernels::active();
  const size_t stride = rows_->stride();
  const auto& lead_dots = k.packed[lead_bits_ - 1];
  const float lead_middle = half_of_codes(lead_bits_) * static_cast<float>(query.coarse_sum);
  const float lead_weight = query.fine ? 64.0f * query.weight : query.weight;
  int32_t lead[kBlock];
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    const uint8_t* first = rows ? base : base + i * stride;
    const Row* some = rows ? rows + i : nullptr;
    lead_dots(query.coarse, first + lead_, stride, some, block, units_, lead);
    if (further_bits_ > 0) {
      score_further(query, first, some, block, bound, lead, out + i);
      continue;
    }
    for (size_t r = 0; r < block; ++r) {
      const Factors& f = factors(first + (some ? some[r] : r) * stride);
      out[i + r] = query.constant + f.add - lead_weight * f.scale * (static_cast<float>(lead[r]) - lead_middle);
    }
  }
}

// The second stage, for rows whose first estimate is not surely above the bound. Sums are whole numbers, so the estimate is
// the same as in one stage.
void RaBitQ::score_further(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound,
                           const int32_t* lead, float* out) const {
  const kernels::Table& k = kernels::active();
  const size_t stride = rows_->stride();
  const float lead_middle = half_of_codes(lead_bits_) * static_cast<float>(query.coarse_sum);
  const float lead_weight = query.fine ? 64.0f * query.weight : query.weight;
  Row left[kBlock];
  uint8_t place[kBlock];
  size_t n_left = 0;
  for (size_t r = 0; r < n; ++r) {
    const Row row = rows ? rows[r] : static_cast<Row>(r);
    const Factors& f = factors(base + row * stride);
    const float estimate =
        query.constant + f.add - lead_weight * f.first_scale * (static_cast<float>(lead[r]) - lead_middle);
    out[r] = estimate - f.first_error * query.width;
    left[n_left] = row;
    place[n_left] = static_cast<uint8_t>(r);
    n_left += !(out[r] > bound);
  }
  if (n_left == 0) return;
  int32_t further[kBlock], low_lead[kBlock], low_further[kBlock];
  const auto& dots = k.packed[further_bits_ - 1];
  dots(query.coarse, base + further_, stride, left, n_left, units_, further);
  if (query.fine) {
    const int8_t* low = query.coarse + size_;
    k.packed[lead_bits_ - 1](low, base + lead_, stride, left, n_left, units_, low_lead);
    dots(low, base + further_, stride, left, n_left, units_, low_further);
  }
  const double middle = static_cast<double>(half_of_codes(spec_.bits)) * query.sum;
  for (size_t r = 0; r < n_left; ++r) {
    const Factors& f = factors(base + left[r] * stride);
    int64_t sum = (static_cast<int64_t>(lead[place[r]]) << further_bits_) + further[r];
    if (query.fine) sum = 64 * sum + (static_cast<int64_t>(low_lead[r]) << further_bits_) + low_further[r];
    out[place[r]] = query.constant + f.add - query.weight * f.scale * static_cast<float>(static_cast<double>(sum) - middle);
  }
}

void RaBitQ::score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const {
  score_block(*static_cast<const Query*>(prepared), rows_->data(), rows, n, bound, out);
}

void RaBitQ::score_range(const void* prepared, Row first, size_t n, float* out) const {
  score_block(*static_cast<const Query*>(prepared), rows_->row(first), nullptr, n, std::numeric_limits<float>::infinity(),
              out);
}

void RaBitQ::widen(void* prepared, float times) const { static_cast<Query*>(prepared)->width *= times; }

void RaBitQ::lower(const void* prepared, Row first, size_t n, float bound, float* out) const {
  const Query& query = *static_cast<const Query*>(prepared);
  const uint8_t* base = rows_->row(first);
  score_block(query, base, nullptr, n, (bound - query.origin) / query.unit, out);
  for (size_t i = 0; i < n; ++i) {
    const float error = query.width * factors(base + i * rows_->stride()).error;
    out[i] = query.unit * (out[i] - error) + query.origin;
  }
}

void RaBitQ::errors(const void* prepared, const Row* rows, size_t n, float* out) const {
  const float width = static_cast<const Query*>(prepared)->width;
  for (size_t i = 0; i < n; ++i) out[i] = width * factors(rows_->row(rows[i])).error;
}

}  // namespace nearly::quant
