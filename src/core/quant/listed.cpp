#include "quant/listed.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nearly::quant {

// Followed by tables of groups * 16 bytes, and a row to compare center codes with.
struct alignas(64) Listed::Query {
  float step, offset;
  float constant, factor;  // of center codes
  const uint8_t* tables() const { return reinterpret_cast<const uint8_t*>(this + 1); }
  uint8_t* tables() { return reinterpret_cast<uint8_t*>(this + 1); }
};

namespace {

constexpr float kCenterLimit = 63;  // see kernels::Table::dots8

float to_float(double x) {  // numbers that overflowed on their way are as large as can be
  constexpr double kMost = std::numeric_limits<float>::max();
  return static_cast<float>(x > kMost ? kMost : x < -kMost ? -kMost : std::isnan(x) ? 0.0 : x);
}

double dot(const float* a, const float* b, size_t n) {
  double part[4] = {};
  size_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (size_t i = 0; i < 4; ++i) part[i] += static_cast<double>(a[j + i]) * b[j + i];
  for (; j < n; ++j) part[0] += static_cast<double>(a[j]) * b[j];
  return (part[0] + part[2]) + (part[1] + part[3]);
}

}  // namespace

Listed::Listed(ListedSpec spec, std::shared_ptr<Table> centers, std::shared_ptr<Table> blocks)
    : spec_(std::move(spec)), centers_(std::move(centers)), blocks_(std::move(blocks)) {
  const size_t width = spec_.width();
  turned_.resize(spec_.books * width * 16);
  for (size_t b = 0; b < spec_.books; ++b) {
    const float* book = spec_.codewords.data() + b * 16 * width;
    books_.emplace_back(book, 16, width);
    for (size_t w = 0; w < 16; ++w)
      for (size_t j = 0; j < width; ++j) turned_[(b * width + j) * 16 + w] = book[w * width + j];
  }
  if (!spec_.matrix.empty()) {
    const size_t outputs = spec_.padded_dims();
    std::vector<float> columns(spec_.dims * spec_.dim);
    for (size_t p = 0; p < spec_.dims; ++p)
      for (size_t j = 0; j < spec_.dim; ++j) columns[p * spec_.dim + j] = spec_.matrix[(j / 2 * outputs + p) * 2 + j % 2];
    encoder_ = std::make_unique<kernels::Packed>(columns.data(), spec_.dims, spec_.dim);
  }
  code_centers();
}

void Listed::code_centers() {
  const size_t n = centers_->rows(), dims = spec_.dims, dim = spec_.dim;
  const bool product = spec_.metric == Metric::kDot;
  std::vector<float> mean(dim), image(dims), about(dim);
  std::vector<double> sum(dim);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < dim; ++j) sum[j] += reinterpret_cast<const float*>(centers_->row(i))[j];
  for (size_t j = 0; j < dim && n > 0; ++j) mean[j] = to_float(sum[j] / static_cast<double>(n));
  middle_.resize(dims);
  images(mean.data(), 1, middle_.data());
  std::vector<float> all(n * dims), rest(n);
  float largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const auto* center = reinterpret_cast<const float*>(centers_->row(i));
    for (size_t j = 0; j < dim; ++j) about[j] = center[j] - mean[j];
    images(about.data(), 1, all.data() + i * dims);
    const float* own = all.data() + i * dims;
    rest[i] = to_float(std::max(0.0, dot(about.data(), about.data(), dim) - dot(own, own, dims)));
    for (size_t j = 0; j < dims; ++j) largest = std::max(largest, std::fabs(own[j]));
  }
  step_ = to_float(largest / 127.5);
  center_codes_ = std::make_unique<Table>((dims + 4 + 31) / 32 * 32, n, std::max<size_t>(n, 1));
  for (size_t i = 0; i < n; ++i) {
    uint8_t* row = center_codes_->row(i);
    std::memset(row, 0, center_codes_->stride());
    double square = rest[i];
    for (size_t j = 0; j < dims; ++j) {
      const float whole = step_ > 0 ? std::nearbyint(all[i * dims + j] / step_ + 127.5f) : 127.5f;
      row[j] = static_cast<uint8_t>(std::clamp(whole, 0.0f, 255.0f));
      const double decoded = step_ * (row[j] - 127.5);
      square += decoded * decoded;
    }
    const float header = product ? 0.0f : to_float(square);
    std::memcpy(row + center_codes_->stride() - 4, &header, 4);
  }
}

// -- coding ------------------------------------------------------------------------------------------------------------

// Images of rows; `out` has dims numbers a row.
void Listed::images(const float* rows, size_t n, float* out) const {
  if (!encoder_) {
    std::copy_n(rows, n * spec_.dims, out);
    return;
  }
  const size_t panel = encoder_->width();
  std::vector<float> tile(n * panel);
  for (size_t p = 0; p < encoder_->panels(); ++p) {
    encoder_->multiply(rows, n, p, tile.data());
    const size_t from = p * panel, used = std::min(panel, spec_.dims - from);
    for (size_t r = 0; r < n; ++r)
      for (size_t c = 0; c < used; ++c) out[r * spec_.dims + from + c] = tile[r * panel + c] * spec_.matrix_scale[from + c];
  }
}

// Readers may look at the other slot of the byte meanwhile.
void Listed::put(Row slot, size_t book, uint32_t code) {
  const size_t shift = slot % kUnit / 16 * 4;
  uint8_t* at = place(slot, book);
  __atomic_store_n(at, static_cast<uint8_t>((*at & ~(15u << shift)) | code << shift), __ATOMIC_RELAXED);
}

void Listed::fill(const float* vectors, const uint32_t* slots, const uint32_t* lists, size_t n) {
  const size_t dim = spec_.dim, dims = spec_.dims, width = spec_.width();
  std::vector<float> residuals(n * dim), image(n * dims), coded(n * dims, 0.0f), part(n * width), value(n), of_center(dims);
  std::vector<uint32_t> label(n);
  for (size_t r = 0; r < n; ++r) {
    const auto* center = reinterpret_cast<const float*>(centers_->row(lists[r]));
    for (size_t j = 0; j < dim; ++j) residuals[r * dim + j] = vectors[r * dim + j] - center[j];
  }
  images(residuals.data(), n, image.data());
  for (size_t b = 0; b < spec_.books; ++b) {
    const size_t first = spec_.first(b), count = spec_.count(b);
    std::fill(part.begin(), part.end(), 0.0f);
    for (size_t r = 0; r < n; ++r) std::copy_n(image.data() + r * dims + first, count, part.data() + r * width);
    books_[b].nearest(part.data(), width, n, label.data(), value.data());
    for (size_t r = 0; r < n; ++r) {
      put(slots[r], b, label[r]);
      std::copy_n(spec_.codewords.data() + (b * 16 + label[r]) * width, count, coded.data() + r * dims + first);
    }
  }
  for (size_t r = 0; r < n; ++r) {
    const double square = dot(residuals.data() + r * dim, residuals.data() + r * dim, dim);
    const double along = dot(image.data() + r * dims, coded.data() + r * dims, dims);
    const double scale = along > 0 ? square / along : 0.0;
    double add = 0;
    if (spec_.metric != Metric::kDot) {
      if (r == 0 || lists[r] != lists[r - 1]) {
        images(reinterpret_cast<const float*>(centers_->row(lists[r])), 1, of_center.data());
        for (size_t j = 0; j < dims; ++j) of_center[j] -= spec_.mean[j];
      }
      add = square + 2.0 * scale * dot(of_center.data(), coded.data() + r * dims, dims);
    }
    float* to = factors(slots[r]);
    to[0] = to_float(scale);
    to[kUnit] = to_float(add);
  }
}

// -- comparing ---------------------------------------------------------------------------------------------------------

size_t Listed::prepared_bytes() const {
  return sizeof(Query) + spec_.groups() * 16 + center_codes_->stride() + 64;
}

void Listed::project(const float* input, float* out) const {
  if (spec_.matrix.empty()) {
    std::copy_n(input, spec_.dims, out);
    return;
  }
  const kernels::Table& k = kernels::active();
  const size_t inputs = spec_.padded_input();
  // Integer sums must fit 32 bits: |sum| <= inputs * 127 * limit.
  const float limit = std::floor(std::min(32767.0f, 2147483647.0f / (127.0f * static_cast<float>(inputs))));
  thread_local std::vector<int16_t> rounded;
  thread_local std::vector<int32_t> sums;
  rounded.assign(inputs, 0);
  sums.resize(spec_.padded_dims());
  const float step = k.quantize16(input, spec_.dim, limit, rounded.data());
  k.project(rounded.data(), 1, spec_.matrix.data(), inputs, spec_.padded_dims(), sums.data());
  for (size_t p = 0; p < spec_.dims; ++p) out[p] = static_cast<float>(sums[p]) * (step * spec_.matrix_scale[p]);
}

void Listed::prepare(const void* query, void* prepared) const {
  const kernels::Table& k = kernels::active();
  auto* made = static_cast<Query*>(prepared);
  auto* row = reinterpret_cast<int8_t*>(made->tables() + spec_.groups() * 16);
  thread_local std::vector<float> form, image, parts, products, about;
  form.resize(spec_.dim);
  spec_.query(static_cast<const float*>(query), form.data());
  image.resize(spec_.dims);
  project(form.data(), image.data());
  const float weight = spec_.metric == Metric::kDot ? -1.0f : -2.0f;
  const size_t width = spec_.width();
  parts.assign(spec_.books * width, 0.0f);
  for (size_t b = 0; b < spec_.books; ++b)
    for (size_t j = 0, at = spec_.first(b); j < spec_.count(b); ++j, ++at)
      parts[b * width + j] = weight * (image[at] - spec_.mean[at]);
  products.resize(spec_.books * 16);
  k.lookups(parts.data(), turned_.data(), spec_.books, width, products.data());
  std::memset(made->tables() + spec_.books * 16, 0, (spec_.groups() - spec_.books) * 16);
  made->step = k.byte_tables(products.data(), spec_.books, made->tables(), &made->offset);

  // |q - c|^2 of images about the middle of all centers, or -<q, c - middle>.
  const bool product = spec_.metric == Metric::kDot;
  about.resize(spec_.dims);
  for (size_t j = 0; j < spec_.dims; ++j) about[j] = product ? image[j] : image[j] - middle_[j];
  std::memset(row, 0, center_codes_->stride());
  const float unit = k.quantize8(about.data(), spec_.dims, kCenterLimit, row);
  int32_t sum = 0;
  for (size_t j = 0; j < spec_.dims; ++j) sum += row[j];
  made->factor = weight * unit * step_;
  made->constant = product ? 0.0f : sum_of_squares(about.data(), spec_.dims);
  made->constant -= 127.5f * made->factor * static_cast<float>(sum);
}

void Listed::centers(const void* prepared, size_t first, size_t n, float* out) const {
  const auto& query = *static_cast<const Query*>(prepared);
  kernels::active().codes8(reinterpret_cast<const int8_t*>(query.tables() + spec_.groups() * 16), center_codes_->row(first),
                           center_codes_->stride(), nullptr, n, query.constant, query.factor, out);
}

size_t Listed::scan(const void* prepared, float base, Row first, size_t n, float bound, int64_t* out) const {
  const auto& query = *static_cast<const Query*>(prepared);
  return kernels::active().scan_listed(query.tables(), blocks_->row(first / kUnit), spec_.groups(), first, n, base,
                                       query.step, query.offset, bound, out);
}

void Listed::score(const void* prepared, const uint32_t* slots, const uint32_t* lists, size_t n, float* out) const {
  const auto& query = *static_cast<const Query*>(prepared);
  for (size_t i = 0; i < n; ++i) {
    uint32_t sum = 0;
    for (size_t b = 0; b < spec_.books; ++b) sum += query.tables()[b * 16 + code(slots[i], b)];
    const float* own = factors(slots[i]);
    float base;
    centers(prepared, lists[i], 1, &base);
    out[i] = (base + own[kUnit]) + own[0] * (query.step * static_cast<float>(sum) + query.offset);
  }
}

void Listed::prefetch(Row first, size_t n) const {
  constexpr size_t kLines = 12;  // the hardware follows
  const uint8_t* block = blocks_->row(first / kUnit);
  for (size_t line = 0; line < kLines && n > 0; ++line) __builtin_prefetch(block + line * 64);
}

}  // namespace nearly::quant
