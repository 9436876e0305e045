#include "quant/plain.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace nearly::quant {

using kernels::Element;

struct Plain::Query {
  kernels::Rows distance;
  bool zero;             // the zero vector under cosine: every distance is 1
  alignas(64) char data[1];
};

namespace {

float half_to_float(uint16_t h) {
  const uint32_t bits = (h & 0x7fffu) << 13;
  float x;
  std::memcpy(&x, &bits, 4);
  x *= 0x1p112f;
  return h & 0x8000u ? -x : x;
}

void widen(const void* from, Element element, size_t n, float* out) {
  switch (element) {
    case kernels::kFloat32: std::memcpy(out, from, n * 4); break;
    case kernels::kFloat16:
      for (size_t j = 0; j < n; ++j) out[j] = half_to_float(static_cast<const uint16_t*>(from)[j]);
      break;
    case kernels::kBfloat16:
      for (size_t j = 0; j < n; ++j) {
        const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(from)[j]) << 16;
        std::memcpy(out + j, &bits, 4);
      }
      break;
    case kernels::kInt8:
      for (size_t j = 0; j < n; ++j) out[j] = static_cast<const int8_t*>(from)[j];
      break;
    default:
      for (size_t j = 0; j < n; ++j) out[j] = static_cast<const uint8_t*>(from)[j];
  }
}

}  // namespace

float inverse_norm(const float* x, size_t dim) {
  constexpr size_t kSums = 8;  // beside each other: one sum waits for each addition
  double sums[kSums] = {};
  size_t j = 0;
  for (; j + kSums <= dim; j += kSums)
    for (size_t i = 0; i < kSums; ++i) sums[i] += static_cast<double>(x[j + i]) * x[j + i];
  for (size_t i = 0; j < dim; ++i, ++j) sums[i] += static_cast<double>(x[j]) * x[j];
  for (size_t half = kSums / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  const double inverse = 1.0 / std::sqrt(sums[0]);
  return inverse <= static_cast<double>(std::numeric_limits<float>::max()) ? static_cast<float>(inverse) : 0.0f;
}

Plain::Plain(std::shared_ptr<Table> rows, Element element, Metric metric, size_t dim)
    : rows_(std::move(rows)), element_(element), metric_(metric), dim_(dim) {}

size_t Plain::element_bytes(Element e) {
  return e == kernels::kFloat32 ? 4 : e == kernels::kFloat16 || e == kernels::kBfloat16 ? 2 : 1;
}

size_t Plain::row_bytes(Element e, Metric metric, size_t dim) {
  const size_t bytes = dim * element_bytes(e);
  const size_t needed = metric == Metric::kCosine ? (bytes + 3) / 4 * 4 + 4 : bytes;
  // Whole cache lines where that costs little; short rows stay tight.
  const size_t unit = needed >= 512 ? 64 : element_bytes(e) == 1 && metric != Metric::kCosine ? 1 : 4;
  return (needed + unit - 1) / unit * unit;
}

void Plain::encode_row(const void* vector, uint8_t* row, float* wide) const {
  const size_t bytes = vector_bytes();
  std::memcpy(row, vector, bytes);
  if (metric_ != Metric::kCosine) return;
  widen(row, element_, dim_, wide);
  const float scale = inverse_norm(wide, dim_);
  std::memcpy(row + (bytes + 3) / 4 * 4, &scale, 4);
}

void Plain::decode_row(const uint8_t* row, float* out) const {
  float scale = 1.0f;
  if (metric_ == Metric::kCosine) std::memcpy(&scale, row + (vector_bytes() + 3) / 4 * 4, 4);
  kernels::active().widen[element_](row, dim_, scale, out);
}

void Plain::fill(size_t first, const void* vectors, size_t n) {
  std::vector<float> wide(metric_ == Metric::kCosine ? dim_ : 0);
  for (size_t i = 0; i < n; ++i)
    encode_row(static_cast<const uint8_t*>(vectors) + i * vector_bytes(), rows_->row(first + i), wide.data());
}

void Plain::decode(const Row* rows, size_t n, float* out) const {
  for (size_t i = 0; i < n; ++i) decode_row(rows_->row(rows[i]), out + i * dim_);
}

void Plain::to_form(const float* query, float* out) const {
  const float scale = metric_ == Metric::kCosine ? inverse_norm(query, dim_) : 1.0f;
  for (size_t j = 0; j < dim_; ++j) out[j] = query[j] * scale;
}

void Plain::prepare_floats(const float* query, Query* out) const {
  const kernels::Table& k = kernels::active();
  out->zero = false;
  const bool bytes = element_ == kernels::kUint8 || element_ == kernels::kInt8;
  if (bytes && (metric_ == Metric::kL2 || metric_ == Metric::kDot)) {
    const bool is_signed = element_ == kernels::kInt8;
    if (k.whole_bytes(query, dim_, is_signed ? -128.0f : 0.0f, is_signed ? 127.0f : 255.0f,
                      reinterpret_cast<uint8_t*>(out->data))) {
      out->distance = metric_ == Metric::kL2 ? (is_signed ? k.l2_squared_i8 : k.l2_squared_u8)
                                             : (is_signed ? k.dot_i8 : k.dot_u8);
      return;
    }
  }
  auto* data = reinterpret_cast<float*>(out->data);
  switch (metric_) {
    case Metric::kL2: out->distance = k.l2_squared[element_]; break;
    case Metric::kDot: out->distance = k.dot[element_]; break;
    case Metric::kL1: out->distance = k.l1[element_]; break;
    default: {
      out->distance = k.cosine[element_];
      const float scale = inverse_norm(query, dim_);
      out->zero = scale == 0.0f;
      for (size_t j = 0; j < dim_; ++j) data[j] = query[j] * scale;
      return;
    }
  }
  std::memcpy(data, query, dim_ * 4);
}

void Plain::prepare(const void* query, void* prepared) const {
  auto* out = static_cast<Query*>(prepared);
  if (!is_bits(metric_)) return prepare_floats(static_cast<const float*>(query), out);
  const kernels::Table& k = kernels::active();
  out->zero = false;
  out->distance = metric_ == Metric::kHamming ? k.hamming : k.jaccard;
  std::memcpy(out->data, query, dim_);
}

void Plain::prepare_row(Row row, void* prepared) const {
  std::vector<uint8_t> room(rows_ ? 0 : row_bytes());
  const uint8_t* from = bytes(row, room.data());
  if (is_bits(metric_)) return prepare(from, prepared);
  std::vector<float> wide(dim_);
  widen(from, element_, dim_, wide.data());
  prepare_floats(wide.data(), static_cast<Query*>(prepared));
}

void Plain::compare(const void* prepared, const uint8_t* data, const Row* rows, size_t n, float* out) const {
  const auto* query = static_cast<const Query*>(prepared);
  if (query->zero) return std::fill(out, out + n, 1.0f), void();
  query->distance(query->data, data, row_bytes(), rows, n, dim_, out);
}

void Plain::score(const void* prepared, const Row* rows, size_t n, float, float* out) const {
  const auto* query = static_cast<const Query*>(prepared);
  if (query->zero) return std::fill(out, out + n, 1.0f), void();
  query->distance(query->data, rows_->data(), rows_->stride(), rows, n, dim_, out);
}

void Plain::score_range(const void* prepared, Row first, size_t n, float* out) const {
  const auto* query = static_cast<const Query*>(prepared);
  if (query->zero) return std::fill(out, out + n, 1.0f), void();
  query->distance(query->data, rows_->row(first), rows_->stride(), nullptr, n, dim_, out);
}

size_t Plain::widened_bytes() const {
  const bool floats = element_ == kernels::kFloat32, bytes = element_ == kernels::kUint8 || element_ == kernels::kInt8;
  if (is_bits(metric_) || !rows_ || (metric_ != Metric::kCosine && (floats || bytes))) return 0;
  return (dim_ * 4 + 4 + 63) / 64 * 64;
}

void Plain::widen_rows(const Row* rows, size_t n, void* out) const {
  const size_t bytes = widened_bytes();
  for (size_t i = 0; i < n; ++i) {
    auto* wide = reinterpret_cast<float*>(static_cast<char*>(out) + i * bytes);
    const uint8_t* row = rows_->row(rows[i]);
    decode_row(row, wide);
    if (metric_ == Metric::kCosine) std::memcpy(wide + dim_, row + (vector_bytes() + 3) / 4 * 4, 4);
  }
}

void Plain::score_widened(const void* prepared, const void* rows, size_t n, float* out) const {
  const auto* query = static_cast<const Query*>(prepared);
  if (query->zero) return std::fill(out, out + n, 1.0f), void();
  const kernels::Table& k = kernels::active();
  const size_t bytes = widened_bytes();
  const auto* from = static_cast<const uint8_t*>(rows);
  if (metric_ != Metric::kCosine) {
    const auto& distance = metric_ == Metric::kL2 ? k.l2_squared : metric_ == Metric::kDot ? k.dot : k.l1;
    return distance[kernels::kFloat32](query->data, from, bytes, nullptr, n, dim_, out);
  }
  k.l2_squared[kernels::kFloat32](query->data, from, bytes, nullptr, n, dim_, out);
  for (size_t i = 0; i < n; ++i) {
    float scale;
    std::memcpy(&scale, from + i * bytes + dim_ * 4, 4);
    out[i] = scale == 0.0f ? 1.0f : 0.5f * out[i];
  }
}

void Plain::prefetch(const Row* rows, size_t n) const {
  const size_t bytes = std::min<size_t>(rows_->stride(), 512);  // the hardware follows after a few lines
  for (size_t i = 0; i < n; ++i) {
    const uint8_t* row = rows_->row(rows[i]);
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
  }
}

}  // namespace nearly::quant
