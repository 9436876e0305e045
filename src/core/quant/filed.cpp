#include "quant/filed.hpp"

#include <algorithm>
#include <vector>

namespace nearly::quant {
namespace {

constexpr size_t kBlock = 128;  // rows read at a time, for all of which the drive is asked at once
constexpr size_t kSlack = 64;   // kernels may read one vector past the end

// A thread's own; walks and scans under way do not score within one another.
uint8_t* room(size_t bytes) {
  thread_local std::vector<uint8_t> memory;
  if (memory.size() < bytes + 2 * kSlack) memory.resize(bytes + 2 * kSlack);
  return memory.data() + (kSlack - reinterpret_cast<uintptr_t>(memory.data()) % kSlack) % kSlack;
}

}  // namespace

void Filed::fill(size_t first, const void* vectors, size_t n) {
  std::vector<float> wide(dim());
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t count = std::min(kBlock, n - i);
    uint8_t* rows = room(kBlock * row_bytes());
    std::fill_n(rows, count * row_bytes(), uint8_t{0});  // padding has one value: equal vectors are equal bytes
    for (size_t j = 0; j < count; ++j)
      encode_row(static_cast<const uint8_t*>(vectors) + (i + j) * vector_bytes(), rows + j * row_bytes(), wide.data());
    file_->write(first + i, rows, count);
  }
}

void Filed::decode(const Row* rows, size_t n, float* out) const {
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t count = std::min(kBlock, n - i);
    uint8_t* read = room(kBlock * row_bytes());
    file_->gather(rows + i, count, read);
    for (size_t j = 0; j < count; ++j) decode_row(read + j * row_bytes(), out + (i + j) * dim());
  }
}

void Filed::score(const void* prepared, const Row* rows, size_t n, float, float* out) const {
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t count = std::min(kBlock, n - i);
    uint8_t* read = room(kBlock * row_bytes());
    file_->gather(rows + i, count, read);
    compare(prepared, read, nullptr, count, out + i);
  }
}

void Filed::score_range(const void* prepared, Row first, size_t n, float* out) const {
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t count = std::min(kBlock, n - i);
    uint8_t* read = room(kBlock * row_bytes());
    file_->read(first + i, count, read);
    compare(prepared, read, nullptr, count, out + i);
  }
}

}  // namespace nearly::quant
