#include "quant/saq.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/lines.hpp"
#include "kernels/table.hpp"
#include "quant/packed.hpp"
#include "quant/scale.hpp"

namespace nearly::quant {

namespace {

// A length as half a float, rounded up.
uint16_t rounded_up(double x) {
  const auto bits = std::bit_cast<uint32_t>(to_float(x));
  return static_cast<uint16_t>((bits + 0xffff) >> 16);
}
float widened(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

constexpr size_t kBlock = 64;    // rows taken together
constexpr size_t kFirst = 16;    // bytes of the factors without further bits
constexpr size_t kFactors = 24;  // with them
constexpr float kHead = 0.8f;    // of the variance that the first stage sees, at least

int leading(int bits) { return std::min(bits, kLead); }

// The axes with the rotations of their segments, which are as long as these: one matrix of orthonormal rows for both, in
// 16-bit whole numbers by one scale, so that lengths are at most kAxisLength.
constexpr float kAxisLength = 30000;
kernels::PackedWhole whole_axes(const SaqSpec& spec) {
  constexpr size_t kTogether = 16;  // columns
  const size_t inputs = spec.input_dim(), even = kernels::PackedWhole::even(inputs);
  std::vector<int16_t> whole;
  std::vector<float> turned, columns;
  const float* axes = spec.axes.data();
  for (const Segment& s : spec.segments) {
    const size_t size = s.rotation.size();
    turned.resize(size * inputs);
    for (size_t first = 0; first < inputs; first += kTogether) {
      const size_t n = std::min(kTogether, inputs - first);
      columns.assign(n * size, 0.0f);
      for (size_t i = 0; i < s.length; ++i)
        for (size_t c = 0; c < n; ++c) columns[c * size + i] = axes[i * inputs + first + c];
      for (size_t c = 0; c < n; ++c) s.rotation.rotate(columns.data() + c * size);
      for (size_t i = 0; i < size; ++i)
        for (size_t c = 0; c < n; ++c) turned[i * inputs + first + c] = columns[c * size + i];
    }
    axes += s.length * inputs;
    const size_t at = whole.size();
    whole.resize(at + size * even);
    for (size_t i = 0; i < size; ++i)
      kernels::active().round16(turned.data() + i * inputs, inputs, kAxisLength, whole.data() + at + i * even);
  }
  return {whole.data(), whole.size() / even, even};
}

}  // namespace

// The distance is constant + add - scale * sum of weight * <digits, code>, or of first scale and leading bits.
struct Saq::Factors {
  float add;            // |r|^2; of products: -<r, center>
  float scale, error;   // |r|^2 / <r, u>; epsilon times the length of r - scale * u: both of what is coded
  uint16_t rest, tail;  // lengths of what the first stage does not see, and of what is not coded
  float first_scale, first_error;  // of leading bits alone, where there are further ones
};

// z is about step * coarse, or step * (64 * coarse + low), segment by segment; low comes after coarse.
struct Saq::Query {
  struct Digit {
    float weight, lead_weight, lead_middle;
    double middle;
  };
  float constant;
  float unit, origin;              // the metric's own distance is unit * distance + origin
  float width, first_width, head;  // of bounds, for a row's error 1: by all bits, by leading ones, by those of the head
  float rest, tail;                // what the lengths of the row's are multiplied by
  Digit digit[kSegments];
  alignas(64) int8_t coarse[1];
};

// Rows that have not been left, their places in what was asked for, and sums of leading bits, of all segments and of those
// that have no further ones.
struct Saq::Left {
  size_t n;
  Row row[kBlock], place[kBlock];
  float sum[kBlock], whole[kBlock];

  // Keeps those whose lowest distance is not above a bound. Few are, so nothing is moved before it is known what.
  void keep(float bound, const float* lowest, float* out) {
    Row from[kBlock];
    size_t kept = 0;
    for (size_t i = 0; i < n; ++i) {
      out[place[i]] = lowest[i];
      from[kept] = static_cast<Row>(i);
      kept += !(lowest[i] > bound);
    }
    for (size_t i = 0; i < kept; ++i) {
      row[i] = row[from[i]];
      place[i] = place[from[i]];
      sum[i] = sum[from[i]];
      whole[i] = whole[from[i]];
    }
    n = kept;
  }
};

Saq::Saq(SaqSpec spec, std::shared_ptr<Table> rows)
    : Bounded(spec.dim, spec.axes.size() / spec.input_dim(), std::move(rows)), spec_(std::move(spec)),
      axes_(whole_axes(spec_)) {
  for (const Segment& s : spec_.segments) further_ |= s.bits > kLead;
  size_t at = further_ ? kFactors : kFirst;
  double variance = 0, seen = 0, errors = 0, first_errors = 0;
  for (const Segment& s : spec_.segments) {
    Part part{size_, s.rotation.size(), s.rotation.size() / kUnit, s.bits, leading(s.bits), s.bits - leading(s.bits),
              at, 0, 0, 0, 0, 0, 0};
    const double all = static_cast<double>(s.variance) * static_cast<double>(s.length);
    const auto error = [&](int bits) { return all * kErrors[bits] / (1.0 - kErrors[bits]); };
    part.step = kSteps[s.bits] * static_cast<float>(std::sqrt(all / static_cast<double>(part.size)));
    part.gain = 1.0f / (1.0f - kErrors[part.bits]);
    part.lead_gain = 1.0f / (1.0f - kErrors[part.lead]);
    part.share = static_cast<float>(error(part.bits) / static_cast<double>(part.size - 1));
    part.first_share = static_cast<float>(error(part.lead) / static_cast<double>(part.size - 1));
    errors += error(part.bits);
    first_errors += error(part.lead);
    variance += all;
    size_ += part.size;
    coded_ += s.length;
    at += part.units * 8 * static_cast<size_t>(part.lead);
    parts_.push_back(part);
  }
  first_bytes_ = at;
  for (Part& part : parts_) {
    part.further_at = at;
    at += part.units * 8 * static_cast<size_t>(part.further);
    part.step /= static_cast<float>(std::sqrt(variance));
    part.share /= static_cast<float>(errors);
    part.first_share /= static_cast<float>(first_errors);
  }
  for (const Part& part : parts_) {
    const float square = part.step * part.step, gain = part.gain;
    const float lead_gain = std::ldexp(part.lead_gain, part.further);  // leading bits alone are of wider steps
    grids_.insert(grids_.end(), part.units, grid(part.bits, square, square));
    gained_.insert(gained_.end(), part.units, grid(part.bits, square * gain, square * gain * gain));
    first_gained_.insert(first_gained_.end(), part.units,
                         grid(part.bits, square * lead_gain, square * lead_gain * lead_gain, part.further));
  }
  while (seen < kHead * variance) {
    const Segment& s = spec_.segments[head_++];
    seen += static_cast<double>(s.variance) * static_cast<double>(s.length);
  }
  center_square_ = sum_of_squares(spec_.center.data(), spec_.center.size());
}

size_t Saq::row_bytes(const std::vector<Segment>& segments) {
  size_t bytes = kFirst;
  bool further = false;
  for (const Segment& s : segments) {
    bytes += Rotation::padded(s.length) / 8 * static_cast<size_t>(s.bits);
    further |= s.bits > kLead;
  }
  return (bytes + (further ? kFactors - kFirst : 0) + 31) / 32 * 32;
}

size_t Saq::prepared_bytes() const { return sizeof(Query) + size_ * (further_ ? 2 : 1) + 64; }

// -- coding ------------------------------------------------------------------------------------------------------------

// The factors of a row: its scale, and the length of what it misses, for a vector of a norm.
void Saq::measure(const Fit& gained, double norm, float* row_scale, float* error) const {
  const double along = gained.product, length = gained.square;
  *row_scale = to_float(norm / along);
  *error = to_float(norm * spec_.epsilon * std::sqrt(std::max(0.0, length / (along * along) - 1.0)));
}

// z: what is coded of the residual, rotated, in steps. square: of the whole residual.
void Saq::encode(const int32_t* z, double step, float add, double square, uint8_t* row) const {
  std::memset(row, 0, rows_->stride());
  thread_local Lines<float> a;
  thread_local std::vector<float> unit_squares;
  unit_squares.resize(size_ / kUnit);
  kernels::active().unit_squares(z, size_ / kUnit, unit_squares.data());
  double head = 0, coded = 0;
  for (size_t p = 0; p < parts_.size(); ++p) {
    for (size_t u = 0; u < parts_[p].units; ++u) coded += unit_squares[parts_[p].first / kUnit + u];
    if (p + 1 == head_) head = coded;
  }
  const double root = std::sqrt(coded), norm = root * step;
  const auto length = [&](double seen) { return rounded_up(std::sqrt(std::max(0.0, square - seen) + 1e-6 * square)); };
  Factors f{add, 0, 0, length(head * step * step),
            static_cast<uint16_t>(coded_ < spec_.input_dim() ? length(norm * norm) : 0), 0, 0};
  if (norm > 0 && norm < std::numeric_limits<double>::infinity()) {
    a.resize(size_);
    for (const Part& part : parts_)
      kernels::active().whole_magnitudes(z + part.first, part.size,
                                         static_cast<float>(1.0 / (root * static_cast<double>(part.step))),
                                         a.data() + part.first);
    const float scale = choose_scale(a.data(), grids_, spec_.rounds).scale;
    for (const Part& part : parts_)
      kernels::active().cut(a.data() + part.first, z + part.first, part.units, scale, part.lead, part.further,
                            row + part.lead_at, row + part.further_at);
    measure(fit(a.data(), gained_, scale), norm, &f.scale, &f.error);
    if (further_) measure(fit(a.data(), first_gained_, scale), norm, &f.first_scale, &f.first_error);
  }
  std::memcpy(row, &f, further_ ? kFactors : kFirst);
}

// The principal components of n residuals, of which the squares are known, padded and rotated by segments: whole numbers, and
// the step of each row. By products of 16-bit whole numbers: they are exact, and rounding costs 1e-8 of a square for 384
// dimensions.
void Saq::project(const float* x, const double* squares, size_t n, int32_t* z, double* steps) const {
  const size_t inputs = spec_.input_dim(), even = kernels::PackedWhole::even(inputs);
  thread_local Lines<int16_t> whole;
  whole.assign(n * even, 0);
  // No number leaves 16 bits, and no sum of products 32: it is at most the product of the lengths, and rounding to whole
  // numbers lengthens each by half a step in every dimension at most; a little more for what floats round.
  const double more = 0.501 * std::sqrt(static_cast<double>(inputs));
  const double longest = (2147483647.0 / (kAxisLength * 1.0001 + more) - more) * 0.9999;
  for (size_t r = 0; r < n; ++r) {
    const float* from = x + r * inputs;
    const double scale = std::min(longest / std::sqrt(squares[r]), 32767.0 / kernels::active().largest(from, inputs));
    if (!(scale < 1e38)) {  // nothing but zeros, or next to nothing
      steps[r] = 0;
      continue;
    }
    kernels::active().round16(from, inputs, static_cast<float>(scale), whole.data() + r * even);
    steps[r] = 1.0 / (scale * kAxisLength);
  }
  thread_local kernels::PackedWhole::Rows rows;
  axes_.take(whole.data(), n, &rows);
  axes_.multiply(rows, 0, axes_.panels(), z, size_);
}

void Saq::fill(size_t first, const float* vectors, size_t n) {
  const size_t inputs = spec_.input_dim();
  thread_local Lines<float> residual;
  thread_local Lines<int32_t> z;
  residual.resize(kBlock * inputs);
  z.resize(kBlock * size_);
  double squares[kBlock], steps[kBlock];
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    for (size_t r = 0; r < block; ++r) {
      float* x = residual.data() + r * inputs;
      spec_.row(vectors + (i + r) * spec_.dim, x);
      squares[r] = kernels::active().center(x, spec_.center.data(), inputs);
    }
    project(residual.data(), squares, block, z.data(), steps);
    for (size_t r = 0; r < block; ++r) {
      const float* x = residual.data() + r * inputs;
      float add = to_float(squares[r]);
      if (spec_.product()) {
        double with_center = 0;
        for (size_t j = 0; j < inputs; ++j) with_center += static_cast<double>(x[j]) * spec_.center[j];
        add = static_cast<float>(-with_center);
      }
      encode(z.data() + r * size_, steps[r], add, squares[r], rows_->row(first + i + r));
    }
  }
}

// The rotated components that a row stands for.
void Saq::unpack(const uint8_t* row, float* z) const {
  uint8_t lead[kUnit], further[kUnit] = {};
  const float scale = factors(row).scale;
  for (const Part& part : parts_)
    for (size_t u = 0; u < part.units; ++u) {
      unpack_unit(row + part.lead_at + u * 8 * static_cast<size_t>(part.lead), part.lead, lead);
      if (part.further > 0)
        unpack_unit(row + part.further_at + u * 8 * static_cast<size_t>(part.further), part.further, further);
      const float middle = half_of_codes(part.bits), step = scale * part.step;
      for (size_t i = 0; i < kUnit; ++i) {
        const int code = part.further > 0 ? lead[i] << part.further | further[i] : lead[i];
        z[part.first + u * kUnit + i] = step * (static_cast<float>(code) - middle);
      }
    }
}

void Saq::decode(Row row, float* out) const {
  std::vector<float> z(size_);
  unpack(rows_->row(row), z.data());
  for (size_t p = 0; p < parts_.size(); ++p)
    spec_.segments[p].rotation.invert(z.data() + parts_[p].first, out + parts_[p].first);
}

// -- preparing ---------------------------------------------------------------------------------------------------------

// A query of these rotated components, and of a square that is not coded.
void Saq::digits(float* z, double left_out, float constant, Query* out) const {
  const float factor = spec_.product() ? 1.0f : 2.0f;
  thread_local std::vector<int16_t> whole;
  whole.resize(size_);
  out->constant = constant;
  out->unit = 1.0f;
  out->origin = 0.0f;
  double width = 0, first_width = 0, head = 0, rest = left_out;
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = parts_[p];
    const float* x = z + part.first;
    const double square = dot(x, x, part.size);
    width += square * static_cast<double>(part.share);
    first_width += square * static_cast<double>(part.first_share);
    (p < head_ ? head : rest) += p < head_ ? square * static_cast<double>(part.first_share) : square;
    const bool fine = part.bits >= kFineBits;
    const float step = kernels::active().quantize16(x, part.size, fine ? kFineLimit : kCoarseLimit, whole.data());
    const Digits made = split(whole.data(), part.size, fine, out->coarse + part.first, out->coarse + size_ + part.first);
    Query::Digit& digit = out->digit[p];
    digit.weight = factor * step * part.step * part.gain;
    digit.lead_weight = std::ldexp(factor * step * part.step * part.lead_gain, part.further + (fine ? 6 : 0));
    digit.lead_middle = half_of_codes(part.lead) * static_cast<float>(made.coarse_sum);
    digit.middle = static_cast<double>(half_of_codes(part.bits)) * made.sum;
  }
  const auto length = [&](double x) { return factor * to_float(std::sqrt(x)); };
  out->width = length(width);
  out->first_width = length(first_width);
  out->head = length(head);
  out->rest = length(rest);
  out->tail = length(left_out);
}

// As RaBitQ: with o = center + r, |q - o|^2 = |q - center|^2 + |r|^2 - 2 <q - center, r>, and
// <q, o> = <q, center> + <center, r> + <q - center, r>.
void Saq::prepare(const void* query, void* prepared) const {
  thread_local std::vector<float> x, z;
  const size_t inputs = spec_.input_dim();
  x.resize(inputs);
  z.resize(size_);
  spec_.query(static_cast<const float*>(query), x.data());
  const float own = sum_of_squares(x.data(), inputs);
  float with_center = 0;
  for (size_t j = 0; j < inputs; ++j) with_center += x[j] * spec_.center[j];
  const double square = kernels::active().center(x.data(), spec_.center.data(), inputs);
  thread_local std::vector<int32_t> whole;
  whole.resize(size_);
  double step;
  project(x.data(), &square, 1, whole.data(), &step);
  for (size_t j = 0; j < size_; ++j) z[j] = static_cast<float>(whole[j]) * static_cast<float>(step);
  const double seen = dot(z.data(), z.data(), size_);
  auto* out = static_cast<Query*>(prepared);
  const double left_out = coded_ < inputs ? std::max(0.0, square - seen) : 0.0;
  digits(z.data(), left_out, spec_.product() ? -with_center : to_float(square), out);
  if (spec_.metric == Metric::kCosine) out->unit = 0.5f;  // |q - o|^2 = 2 (1 - <q, o>) of unit vectors
  if (spec_.lengthened()) {  // |q - o|^2 = |q|^2 + norm_bound^2 - 2 <q, o>
    out->unit = 0.5f;
    out->origin = -0.5f * (own + spec_.norm_bound * spec_.norm_bound);
  }
}

// The row asks by its code.
void Saq::prepare_row(Row row, void* prepared) const {
  thread_local std::vector<float> z;
  z.resize(size_);
  const uint8_t* from = rows_->row(row);
  unpack(from, z.data());
  const Factors& f = factors(from);
  const double tail = widened(f.tail);
  digits(z.data(), tail * tail, spec_.product() ? f.add - center_square_ : f.add, static_cast<Query*>(prepared));
}

// -- comparing ---------------------------------------------------------------------------------------------------------

void Saq::add_leading(const Query& query, const Part& part, size_t p, const uint8_t* base, Left* left) const {
  int32_t dots[kBlock];
  kernels::active().packed[part.lead - 1](query.coarse + part.first, base + part.lead_at, rows_->stride(), left->row,
                                          left->n, part.units, dots);
  const Query::Digit& digit = query.digit[p];
  const size_t n = left->n;
  const float weight = digit.lead_weight, middle = digit.lead_middle;
  for (size_t i = 0; i < n; ++i) left->sum[i] += weight * (static_cast<float>(dots[i]) - middle);
  if (!further_ || part.further > 0) return;
  for (size_t i = 0; i < n; ++i) left->whole[i] += weight * (static_cast<float>(dots[i]) - middle);
}

// All bits of a segment that has further ones. Sums are whole numbers: it does not matter which stage took them.
void Saq::add_further(const Query& query, const Part& part, size_t p, const uint8_t* base, Left* left) const {
  const kernels::Table& k = kernels::active();
  const int8_t *coarse = query.coarse + part.first, *low = coarse + size_;
  int32_t dots[4][kBlock];
  const auto take = [&](int bits, const int8_t* digits, size_t at, int32_t* out) {
    k.packed[bits - 1](digits, base + at, rows_->stride(), left->row, left->n, part.units, out);
  };
  take(part.lead, coarse, part.lead_at, dots[0]);
  take(part.lead, low, part.lead_at, dots[1]);
  take(part.further, coarse, part.further_at, dots[2]);
  take(part.further, low, part.further_at, dots[3]);
  const Query::Digit& digit = query.digit[p];
  for (size_t i = 0; i < left->n; ++i) {
    const int64_t lead = 64 * static_cast<int64_t>(dots[0][i]) + dots[1][i];
    const int64_t further = 64 * static_cast<int64_t>(dots[2][i]) + dots[3][i];
    const auto sum = static_cast<double>((lead << part.further) + further);
    left->whole[i] += digit.weight * static_cast<float>(sum - digit.middle);
  }
}

// Scores, or the lowest that distances can be by their bounds; above `bound` what some of the bits say.
template <bool kFurther>
void Saq::score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, bool lowest,
                      float* out) const {
  const size_t stride = rows_->stride();
  const float constant = query.constant;
  Left left;
  float low[kBlock];
  // What a lowest distance is by leading bits, a width and what they did not see: `tail` says which length that is.
  const auto lower = [&](float width, float unseen, bool tail) {
    for (size_t i = 0; i < left.n; ++i) {
      const Factors& f = factors(base + left.row[i] * stride);
      low[i] = constant + f.add - (kFurther ? f.first_scale : f.scale) * left.sum[i] -
               (kFurther ? f.first_error : f.error) * width - widened(tail ? f.tail : f.rest) * unseen;
    }
  };
  for (size_t begin = 0; begin < n; begin += kBlock, out += kBlock) {
    left.n = std::min(kBlock, n - begin);
    for (size_t i = 0; i < left.n; ++i) left.row[i] = rows ? rows[begin + i] : static_cast<Row>(begin + i);
    for (size_t i = 0; i < left.n; ++i) {
      left.place[i] = static_cast<Row>(i);
      left.sum[i] = left.whole[i] = 0.0f;
    }
    for (size_t p = 0; p < parts_.size(); ++p) {
      if (p == head_) {
        lower(query.head, query.rest, false);
        left.keep(bound, low, out);
      }
      add_leading(query, parts_[p], p, base, &left);
    }
    if constexpr (kFurther) {
      lower(query.first_width, query.tail, true);
      left.keep(bound, low, out);
      for (size_t p = 0; p < parts_.size(); ++p)
        if (parts_[p].further > 0) add_further(query, parts_[p], p, base, &left);
    }
    for (size_t i = 0; i < left.n; ++i) {
      const Factors& f = factors(base + left.row[i] * stride);
      const float estimate = constant + f.add - f.scale * (kFurther ? left.whole[i] : left.sum[i]);
      out[left.place[i]] = lowest ? estimate - f.error * query.width - widened(f.tail) * query.tail : estimate;
    }
  }
}

void Saq::score_rows(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, bool lowest,
                     float* out) const {
  if (further_)
    score_block<true>(query, base, rows, n, bound, lowest, out);
  else
    score_block<false>(query, base, rows, n, bound, lowest, out);
}

void Saq::score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const {
  score_rows(*static_cast<const Query*>(prepared), rows_->data(), rows, n, bound, false, out);
}

void Saq::score_range(const void* prepared, Row first, size_t n, float* out) const {
  score_rows(*static_cast<const Query*>(prepared), rows_->row(first), nullptr, n, std::numeric_limits<float>::infinity(),
              false, out);
}

void Saq::widen(void* prepared, float times) const {
  auto* query = static_cast<Query*>(prepared);
  for (float* width : {&query->width, &query->first_width, &query->head}) *width *= times;
}

void Saq::lower(const void* prepared, Row first, size_t n, float bound, float* out) const {
  const Query& query = *static_cast<const Query*>(prepared);
  score_rows(query, rows_->row(first), nullptr, n, (bound - query.origin) / query.unit, true, out);
  for (size_t i = 0; i < n; ++i) out[i] = query.unit * out[i] + query.origin;
}

void Saq::errors(const void* prepared, const Row* rows, size_t n, float* out) const {
  const Query& query = *static_cast<const Query*>(prepared);
  for (size_t i = 0; i < n; ++i) {
    const Factors& f = factors(rows_->row(rows[i]));
    out[i] = query.width * f.error + query.tail * widened(f.tail);
  }
}

}  // namespace nearly::quant
