#include "quant/codes.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nearly::quant {

struct Codes::Query {
  float constant;  // distance = constant + header + factor * dot (shared steps)
  float factor;
  float sum;       // sum of the quantized query, for Scale::kVector
  alignas(64) int8_t q[1];
};

struct Codes::Panel {
  alignas(64) float constants[32], factors[32];
  size_t n;
  alignas(64) int8_t values[64];  // and as many as follow
};

namespace {

constexpr float kQueryLimit = 63;  // see kernels::Table::dots8
constexpr size_t kBlock = 64;      // rows a kernel call; products wait on the stack

size_t code_bytes(const CodeSpec& s) { return s.bits == 8 ? s.dims : (s.dims + 1) / 2; }
size_t header_bytes(const CodeSpec& s) { return s.scale == Scale::kVector ? 12 : s.product() ? 0 : 4; }
float half_range(const CodeSpec& s) { return s.bits == 8 ? 127.5f : 7.5f; }

int code_at(const CodeSpec& s, const uint8_t* row, size_t j) {
  if (s.bits == 8) return row[j];
  const size_t half = code_bytes(s);
  return j < half ? row[j] & 15 : row[j - half] >> 4;
}

}  // namespace

Codes::Codes(CodeSpec spec, std::shared_ptr<Table> rows)
    : Coded(spec.dim, spec.dims, std::move(rows)), spec_(std::move(spec)) {
  uniform_ = spec_.scale == Scale::kShared &&
             std::all_of(spec_.step.begin(), spec_.step.end(), [&](float s) { return s == spec_.step[0]; });
  if (spec_.matrix.empty()) return;
  mean_square_ = sum_of_squares(spec_.mean.data(), spec_.mean.size());
  const size_t inputs = spec_.input_dim(), outputs = spec_.padded_dims();
  std::vector<float> columns(spec_.dims * inputs);
  for (size_t p = 0; p < spec_.dims; ++p)
    for (size_t j = 0; j < inputs; ++j) columns[p * inputs + j] = spec_.matrix[(j / 2 * outputs + p) * 2 + j % 2];
  encoder_ = std::make_unique<kernels::Packed>(columns.data(), spec_.dims, inputs);
}

size_t Codes::row_bytes(const CodeSpec& s) {
  const size_t bytes = code_bytes(s) + header_bytes(s);
  const size_t unit = bytes <= 32 ? 32 : 64;
  return (bytes + unit - 1) / unit * unit;
}

const float* Codes::header(const uint8_t* row) const {
  return reinterpret_cast<const float*>(row + rows_->stride() - header_bytes(spec_));
}

size_t Codes::prepared_bytes() const { return 64 + rows_->stride() * (spec_.bits == 8 ? 1 : 2) + 64; }

void Codes::project(const float* input, size_t n, float* out) const {
  const kernels::Table& k = kernels::active();
  const size_t inputs = spec_.padded_input(), outputs = spec_.padded_dims();
  // Integer sums must fit 32 bits: |sum| <= inputs * 127 * limit.
  const float limit = std::floor(std::min(32767.0f, 2147483647.0f / (127.0f * static_cast<float>(inputs))));
  thread_local std::vector<int16_t> rounded;
  thread_local std::vector<int32_t> sums;
  thread_local std::vector<float> steps;
  rounded.assign(n * inputs, 0);
  sums.resize(n * outputs);
  steps.resize(n);
  for (size_t i = 0; i < n; ++i)
    steps[i] = k.quantize16(input + i * spec_.input_dim(), spec_.input_dim(), limit, rounded.data() + i * inputs);
  k.project(rounded.data(), n, spec_.matrix.data(), inputs, outputs, sums.data());
  for (size_t i = 0; i < n; ++i)
    for (size_t p = 0; p < spec_.dims; ++p)
      out[i * spec_.dims + p] =
          static_cast<float>(sums[i * outputs + p]) * (steps[i] * spec_.matrix_scale[p]) - spec_.offset[p];
}

// z: the query about the center; for a product, about 0. Writes constant, factor and the quantized query; the caller adds
// what it knows.
void Codes::quantize(const float* z, Query* out) const {
  const kernels::Table& k = kernels::active();
  const size_t dims = spec_.dims, size = rows_->stride();
  const bool shared = spec_.scale == Scale::kShared;
  thread_local std::vector<float> weighted;
  thread_local std::vector<int8_t> rounded;
  weighted.resize(dims);
  rounded.resize(dims);
  for (size_t j = 0; j < dims; ++j) weighted[j] = shared ? z[j] * spec_.step[j] : z[j];
  const float t = k.quantize8(weighted.data(), dims, kQueryLimit, rounded.data());
  std::memset(out->q, 0, size * (spec_.bits == 8 ? 1 : 2));
  int32_t sum = 0;
  for (size_t j = 0; j < dims; ++j) sum += rounded[j];
  if (spec_.bits == 8) {
    std::memcpy(out->q, rounded.data(), dims);
  } else {
    const size_t half = code_bytes(spec_);
    std::memcpy(out->q, rounded.data(), half);
    std::memcpy(out->q + size, rounded.data() + half, dims - half);
  }
  const float weight = spec_.product() ? t : 2.0f * t;
  out->sum = static_cast<float>(sum);
  out->factor = -weight;
  out->constant = spec_.product() ? 0.0f : sum_of_squares(z, dims);
  if (shared) out->constant += half_range(spec_) * weight * out->sum;
}

// A row is about mean + P'(center + u) and z holds P times the query: <query, row> = <query, mean> + <z, center> + <z, u>.
void Codes::quantize_for_product(float* z, float with_mean, Query* out) const {
  for (size_t j = 0; j < spec_.dims; ++j) with_mean += z[j] * spec_.center[j];
  quantize(z, out);
  out->constant -= with_mean;
}

void Codes::prepare_many(const void* queries, size_t query_stride, size_t n, void* prepared, size_t stride) const {
  thread_local std::vector<float> forms, images;
  const size_t inputs = spec_.input_dim(), dims = spec_.dims;
  forms.resize(n * inputs);
  images.resize(n * dims);
  for (size_t i = 0; i < n; ++i)
    spec_.query(reinterpret_cast<const float*>(static_cast<const char*>(queries) + i * query_stride), &forms[i * inputs]);
  if (spec_.matrix.empty())
    std::copy(forms.begin(), forms.end(), images.begin());
  else
    project(forms.data(), n, images.data());
  for (size_t i = 0; i < n; ++i) {
    const float* form = &forms[i * inputs];
    float* z = &images[i * dims];
    auto* out = reinterpret_cast<Query*>(static_cast<char*>(prepared) + i * stride);
    if (spec_.product()) {
      float with_mean = 0;
      for (size_t j = 0; j < spec_.mean.size(); ++j) with_mean += form[j] * spec_.mean[j];
      for (size_t j = 0; j < spec_.offset.size(); ++j) z[j] += spec_.offset[j];
      quantize_for_product(z, with_mean, out);
      continue;
    }
    for (size_t j = 0; j < dims; ++j) z[j] -= spec_.center[j];
    quantize(z, out);
  }
}

// Steps are equal in all dimensions: the row's own codes, centered and halved, are the quantized query.
void Codes::prepare_from_codes(const uint8_t* row, Query* out) const {
  const size_t size = rows_->stride(), dims = spec_.dims;
  const float s = spec_.step.empty() ? 0.0f : spec_.step[0];
  std::memset(out->q, 0, size * (spec_.bits == 8 ? 1 : 2));
  int32_t sum = 0;
  if (spec_.bits == 8) {
    sum = kernels::active().halve(row, dims, out->q);
  } else {
    const size_t half = code_bytes(spec_);
    for (size_t j = 0; j < half; ++j) {
      out->q[j] = static_cast<int8_t>((row[j] & 15) * 8 - 60);
      if (half + j < dims) out->q[size + j] = static_cast<int8_t>((row[j] >> 4) * 8 - 60);
      sum += out->q[j] + out->q[size + j];
    }
  }
  const float t = s * s * (spec_.bits == 8 ? 2.0f : 0.125f);
  out->sum = static_cast<float>(sum);
  out->factor = -2.0f * t;
  out->constant = *header(row) + 2.0f * half_range(spec_) * t * out->sum;
}

void Codes::prepare_row(Row row, void* prepared) const {
  auto* out = static_cast<Query*>(prepared);
  if (uniform_ && !spec_.product()) return prepare_from_codes(rows_->row(row), out);
  thread_local std::vector<float> z;
  z.resize(spec_.dims);
  decode(row, z.data());
  if (spec_.product()) {
    float with_mean = mean_square_;
    for (size_t j = 0; j < spec_.offset.size(); ++j) {
      with_mean += spec_.offset[j] * z[j];
      z[j] += spec_.offset[j];
    }
    return quantize_for_product(z.data(), with_mean, out);
  }
  for (size_t j = 0; j < spec_.dims; ++j) z[j] -= spec_.center[j];
  quantize(z.data(), out);
  // The energy that this row's own projection left out belongs to its distances too.
  out->constant += std::max(0.0f, *header(rows_->row(row)) - sum_of_squares(z.data(), spec_.dims));
}

void Codes::score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float* out) const {
  const kernels::Table& k = kernels::active();
  const size_t stride = rows_->stride();
  if (spec_.scale == Scale::kShared && !spec_.product())
    return (spec_.bits == 8 ? k.codes8 : k.codes4)(query.q, base, stride, rows, n, query.constant, query.factor, out);
  int32_t sums[kBlock];
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    const uint8_t* first = rows ? base : base + i * stride;
    (spec_.bits == 8 ? k.dots8 : k.dots4)(query.q, first, stride, rows ? rows + i : nullptr, block, stride, sums);
    if (spec_.scale == Scale::kShared) {
      for (size_t r = 0; r < block; ++r) out[i + r] = query.constant + query.factor * static_cast<float>(sums[r]);
      continue;
    }
    for (size_t r = 0; r < block; ++r) {
      const float* h = header(first + (rows ? rows[i + r] : r) * stride);
      out[i + r] = query.constant + h[0] + query.factor * (h[1] * static_cast<float>(sums[r]) + h[2] * query.sum);
    }
  }
}

void Codes::score(const void* prepared, const Row* rows, size_t n, float, float* out) const {
  score_block(*static_cast<const Query*>(prepared), rows_->data(), rows, n, out);
}

void Codes::score_range(const void* prepared, Row first, size_t n, float* out) const {
  score_block(*static_cast<const Query*>(prepared), rows_->row(first), nullptr, n, out);
}

size_t Codes::panel_width(const kernels::Table& by) const {
  return spec_.bits == 8 && spec_.scale == Scale::kShared ? by.panel : 0;
}

size_t Codes::panel_bytes(const kernels::Table& by) const { return sizeof(Panel) + rows_->stride() * panel_width(by); }

void Codes::pack(const kernels::Table& by, const void* const* prepared, size_t n, void* panel) const {
  auto* out = static_cast<Panel*>(panel);
  const size_t width = panel_width(by), stride = rows_->stride();
  std::memset(panel, 0, panel_bytes(by));
  out->n = n;
  for (size_t c = 0; c < n; ++c) {
    const auto& query = *static_cast<const Query*>(prepared[c]);
    out->constants[c] = query.constant;
    out->factors[c] = query.factor;
    for (size_t j = 0; j < stride; j += 4) std::memcpy(out->values + (j / 4 * width + c) * 4, query.q + j, 4);
  }
}

void Codes::score_panel(const kernels::Table& by, const void* panel, const float* bounds, const Row* rows, size_t n,
                        float* tile, uint32_t* near) const {
  const auto& p = *static_cast<const Panel*>(panel);
  by.code_panel(p.values, p.n, p.constants, p.factors, bounds, rows_->data(), rows_->stride(), rows, n, !spec_.product(), tile,
                near);
}

void Codes::encode(const float* z, float left_out, uint8_t* row) const {
  const size_t dims = spec_.dims, half = code_bytes(spec_);
  const float top = spec_.bits == 8 ? 255.0f : 15.0f;
  float h[3] = {left_out, 0, 0};
  float low = 0, step = 0;
  if (spec_.scale == Scale::kVector) {
    const auto [least, most] = std::minmax_element(z, z + dims);
    low = *least;
    step = (*most - *least) / top;
    h[1] = step;
    h[2] = low;
  }
  float energy = 0;
  std::memset(row, 0, rows_->stride());
  for (size_t j = 0; j < dims; ++j) {
    const float s = spec_.scale == Scale::kVector ? step : spec_.step[j];
    const float origin = spec_.scale == Scale::kVector ? low : -s * (top * 0.5f);
    float c = s > 0 ? std::nearbyint((z[j] - origin) / s) : 0.0f;
    c = std::clamp(c, 0.0f, top);
    const float u = origin + s * c;
    energy += u * u;
    const auto code = static_cast<uint8_t>(c);
    if (spec_.bits == 8)
      row[j] = code;
    else
      row[j < half ? j : j - half] |= j < half ? code : static_cast<uint8_t>(code << 4);
  }
  h[0] = spec_.product() ? 0.0f : h[0] + energy;
  std::memcpy(const_cast<float*>(header(row)), h, header_bytes(spec_));
}

void Codes::decode(Row row, float* out) const {
  const uint8_t* from = rows_->row(row);
  const float* h = header(from);
  for (size_t j = 0; j < spec_.dims; ++j) {
    const auto c = static_cast<float>(code_at(spec_, from, j));
    const float u = spec_.scale == Scale::kVector ? h[2] + h[1] * c : spec_.step[j] * (c - half_range(spec_));
    out[j] = spec_.center[j] + u;
  }
}

void Codes::fill(size_t first, const float* vectors, size_t n) {
  const size_t inputs = spec_.input_dim(), dims = spec_.dims;
  const size_t panel = encoder_ ? encoder_->width() : 0, wide = encoder_ ? encoder_->panels() * panel : 0;
  std::vector<float> form(kBlock * inputs), projected(kBlock * wide), tile(kBlock * panel), z(dims);
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    for (size_t r = 0; r < block; ++r) spec_.row(vectors + (i + r) * spec_.dim, form.data() + r * inputs);
    for (size_t p = 0; p * panel < wide; ++p) {
      encoder_->multiply(form.data(), block, p, tile.data());
      for (size_t r = 0; r < block; ++r)
        std::copy_n(tile.data() + r * panel, panel, projected.data() + r * wide + p * panel);
    }
    for (size_t r = 0; r < block; ++r) {
      const float* f = form.data() + r * inputs;
      float left_out = 0;
      if (spec_.matrix.empty()) {
        for (size_t j = 0; j < dims; ++j) z[j] = f[j] - spec_.center[j];
      } else {
        for (size_t j = 0; j < dims; ++j)
          z[j] = projected[r * wide + j] * spec_.matrix_scale[j] - spec_.offset[j];
        for (size_t j = 0; j < inputs; ++j) left_out += (f[j] - spec_.mean[j]) * (f[j] - spec_.mean[j]);
        left_out = std::max(0.0f, left_out - sum_of_squares(z.data(), dims));
        for (size_t j = 0; j < dims; ++j) z[j] -= spec_.center[j];
      }
      encode(z.data(), left_out, rows_->row(first + i + r));
    }
  }
}

}  // namespace nearly::quant
