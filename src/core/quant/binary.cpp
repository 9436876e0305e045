#include "quant/binary.hpp"

#include <cstring>

#include "kernels/table.hpp"

namespace nearly::quant {

Binary::Binary(Form form, std::vector<float> center, std::vector<float> levels, std::shared_ptr<Table> rows)
    : Coded(form.dim, form.input_dim(), std::move(rows)), form_(form), center_(std::move(center)), levels_(std::move(levels)) {}

void Binary::pack(const float* x, bool centered, uint8_t* out) const {
  const size_t inputs = form_.input_dim();
  for (size_t first = 0; first < inputs; first += 64) {
    uint64_t word = 0;
    for (size_t j = first; j < inputs && j < first + 64; ++j)
      word |= static_cast<uint64_t>(x[j] > (centered ? center_[j] : 0.0f)) << (j - first);
    std::memcpy(out + first / 8, &word, sizeof word);
  }
}

void Binary::fill(size_t first, const float* vectors, size_t n) {
  std::vector<float> form(form_.input_dim());
  for (size_t i = 0; i < n; ++i) {
    form_.row(vectors + i * form_.dim, form.data());
    pack(form.data(), true, rows_->row(first + i));
  }
}

void Binary::decode(Row row, float* out) const {
  const uint8_t* bits = rows_->row(row);
  for (size_t j = 0; j < center_.size(); ++j)
    out[j] = center_[j] + (bits[j / 8] >> (j % 8) & 1 ? levels_[j] : -levels_[j]);
}

void Binary::prepare(const void* query, void* prepared) const {
  std::vector<float> form(form_.input_dim());
  form_.query(static_cast<const float*>(query), form.data());
  pack(form.data(), centers_query(), static_cast<uint8_t*>(prepared));
}

void Binary::prepare_row(Row row, void* prepared) const {
  if (centers_query()) {
    std::memcpy(prepared, rows_->row(row), rows_->stride());
    return;
  }
  std::vector<float> form(form_.input_dim());
  decode(row, form.data());
  pack(form.data(), false, static_cast<uint8_t*>(prepared));
}

void Binary::score(const void* prepared, const Row* rows, size_t n, float, float* out) const {
  kernels::active().hamming(prepared, rows_->data(), rows_->stride(), rows, n, rows_->stride(), out);
}

void Binary::score_range(const void* prepared, Row first, size_t n, float* out) const {
  kernels::active().hamming(prepared, rows_->row(first), rows_->stride(), nullptr, n, rows_->stride(), out);
}

}  // namespace nearly::quant
