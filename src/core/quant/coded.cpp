#include "quant/coded.hpp"

#include <algorithm>

namespace nearly::quant {

void Coded::prefetch(const Row* rows, size_t n) const {
  constexpr size_t kMost = 4;  // lines; the hardware follows after a few
  const size_t stride = rows_->stride(), bytes = std::min(stride, first_bytes_);
  const uint8_t* base = rows_->data();
  if (stride % 64 == 0 || stride == 32) {
    const size_t lines = std::min((bytes + 63) / 64, kMost);
    if (lines == 1) {
      for (size_t i = 0; i < n; ++i) __builtin_prefetch(base + rows[i] * stride);
      return;
    }
    for (size_t i = 0; i < n; ++i)
      for (size_t line = 0; line < lines; ++line) __builtin_prefetch(base + rows[i] * stride + line * 64);
    return;
  }
  for (size_t i = 0; i < n; ++i) {  // rows that begin within a line
    const auto from = reinterpret_cast<uintptr_t>(base + rows[i] * stride);
    const uintptr_t end = from + std::min(bytes, kMost * 64);
    for (uintptr_t line = from / 64 * 64; line < end; line += 64) __builtin_prefetch(reinterpret_cast<const void*>(line));
  }
}

}  // namespace nearly::quant
