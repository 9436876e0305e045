#include "quant/mapped.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nearly::quant {

Mapped::Mapped(Form form, std::shared_ptr<const Map> map, bool rest, std::vector<float> center, std::shared_ptr<Coded> codes)
    : Coded(form.dim, codes->dims(), codes->rows()), form_(form), map_(std::move(map)), rest_(rest),
      center_(std::move(center)), shift_(map_->outputs()), codes_(std::move(codes)) {
  map_->apply(center_.data(), 1, false, shift_.data());
  for (const float x : center_) center_square_ += x * x;
}

void Mapped::fill(size_t first, const float* vectors, size_t n) {
  constexpr size_t kBlock = 64;
  const size_t inputs = form_.input_dim(), outputs = map_->outputs(), wide = outputs + rest_;
  std::vector<float> form(kBlock * inputs), image(kBlock * outputs), coded(kBlock * wide);
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    for (size_t r = 0; r < block; ++r) form_.row(vectors + (i + r) * form_.dim, form.data() + r * inputs);
    map_->apply(form.data(), block, true, image.data());
    for (size_t r = 0; r < block; ++r) {
      std::copy_n(image.data() + r * outputs, outputs, coded.data() + r * wide);
      if (!rest_) continue;
      const float* f = form.data() + r * inputs;
      double rest = 0;
      for (size_t j = 0; j < inputs; ++j) rest += static_cast<double>(f[j] - center_[j]) * (f[j] - center_[j]);
      for (size_t j = 0; j < outputs; ++j) rest -= static_cast<double>(image[r * outputs + j]) * image[r * outputs + j];
      coded[r * wide + outputs] = static_cast<float>(std::sqrt(std::max(0.0, rest)));
    }
    codes_->fill(first + i, coded.data(), block);
  }
}

void Mapped::prepare(const void* query, void* prepared) const {
  const size_t inputs = form_.input_dim(), outputs = map_->outputs();
  thread_local std::vector<float> form, image;
  form.resize(inputs);
  image.assign(outputs + rest_, 0.0f);
  form_.query(static_cast<const float*>(query), form.data());
  map_->apply(form.data(), 1, !form_.product(), image.data());
  float constant = 0;
  if (form_.product())
    for (size_t j = 0; j < inputs; ++j) constant -= form[j] * center_[j];
  std::memcpy(prepared, &constant, sizeof constant);
  codes_->prepare(image.data(), static_cast<uint8_t*>(prepared) + kHeader);
}

void Mapped::prepare_row(Row row, void* prepared) const {
  float constant = 0;
  void* rest = static_cast<uint8_t*>(prepared) + kHeader;
  if (form_.product()) {  // the row as a query: its image without offset
    std::vector<float> image(codes_->dims());
    codes_->decode(row, image.data());
    constant = -center_square_;
    for (size_t j = 0; j < image.size(); ++j) {
      constant -= image[j] * shift_[j];
      image[j] += shift_[j];
    }
    codes_->prepare(image.data(), rest);
  } else {
    codes_->prepare_row(row, rest);
  }
  std::memcpy(prepared, &constant, sizeof constant);
}

void Mapped::score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const {
  float constant;
  std::memcpy(&constant, prepared, sizeof constant);
  codes_->score(static_cast<const uint8_t*>(prepared) + kHeader, rows, n, bound - constant, out);
  if (constant != 0.0f)
    for (size_t i = 0; i < n; ++i) out[i] += constant;
}

void Mapped::score_range(const void* prepared, Row first, size_t n, float* out) const {
  float constant;
  std::memcpy(&constant, prepared, sizeof constant);
  codes_->score_range(static_cast<const uint8_t*>(prepared) + kHeader, first, n, out);
  if (constant != 0.0f)
    for (size_t i = 0; i < n; ++i) out[i] += constant;
}

}  // namespace nearly::quant
