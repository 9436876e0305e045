#include "filters/spans.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/table.hpp"

namespace nearly::filters {
namespace {

constexpr size_t kBlock = size_t{1} << 15;    // rows whose bits are made before they meet those of `valid`
constexpr size_t kGrain = size_t{1} << 18;    // rows that pay for another thread
constexpr uint8_t kCovered = 1, kTouched = 2;

// Spans that one pass of a kernel meets no slower than buckets do, by bytes of a value; measured (bench_filters).
constexpr size_t most_spans(size_t bytes) { return bytes <= 2 ? 32 : bytes == 4 ? 16 : 8; }

// The order of floats as whole numbers; both zeros are one number.
int64_t ordered(double x) {
  const auto bits = std::bit_cast<int64_t>(x + 0.0);
  return bits ^ static_cast<int64_t>(static_cast<uint64_t>(bits >> 63) >> 1);
}
template <typename T> int64_t key(T x) { return static_cast<int64_t>(x); }
template <> int64_t key(double x) { return ordered(x); }

uint64_t last_word(size_t n) { return n % 64 ? (uint64_t{1} << (n % 64)) - 1 : ~uint64_t{0}; }

// Bit j is set where byte j has the lowest bit set.
uint64_t low_bits(const uint8_t* bytes) {
  uint64_t word = 0;
  for (size_t j = 0; j < 64; j += 8) {
    uint64_t eight;
    std::memcpy(&eight, bytes + j, sizeof eight);
    word |= ((eight & 0x0101010101010101u) * 0x0102040810204080u >> 56) << j;
  }
  return word;
}

// Runs body(first row, rows) over blocks, on threads.
template <typename Body> void by_blocks(size_t n, size_t threads, Body body) {
  const size_t blocks = (n + kBlock - 1) / kBlock;
  parallel_for(blocks, kGrain / kBlock, threads, [&](size_t begin, size_t end) {
    for (size_t b = begin; b < end; ++b) body(b * kBlock, std::min(kBlock, n - b * kBlock));
  });
}

}  // namespace

Spans::Spans(const int64_t* low, const int64_t* high, size_t n) : low_(low, low + n), high_(high, high + n) { set_buckets(); }

Spans::Spans(const double* low, const double* high, size_t n)
    : float_low_(low, low + n), float_high_(high, high + n), low_(n), high_(n) {
  std::transform(low, low + n, low_.begin(), ordered);
  std::transform(high, high + n, high_.begin(), ordered);
  set_buckets();
}

void Spans::set_buckets() {
  if (low_.size() <= most_spans(8)) return;  // kernels meet so few, whatever the width
  const auto base = static_cast<uint64_t>(low_.front()), range = static_cast<uint64_t>(high_.back()) - base;
  // Several for each span, so that few values fall beside one; no more than the caches hold.
  const uint64_t most = std::clamp(std::bit_ceil(low_.size()) * 32, size_t{1} << 16, size_t{1} << 20);
  while (range >> shift_ >= most) ++shift_;
  buckets_.assign((range >> shift_) + 2, 0);
  if (shift_ > 0) first_.assign(buckets_.size(), 0);
  const uint64_t rest = (uint64_t{1} << shift_) - 1;
  for (size_t i = 0; i < low_.size(); ++i) {
    const uint64_t from = static_cast<uint64_t>(low_[i]) - base, to = static_cast<uint64_t>(high_[i]) - base;
    for (uint64_t b = from >> shift_; b <= to >> shift_; ++b) {
      const uint64_t first = b << shift_;
      if (!buckets_[b] && shift_ > 0) first_[b] = static_cast<uint32_t>(i);
      buckets_[b] = from <= first && first + rest <= to ? kCovered : kTouched;
    }
  }
}

template <typename T> uint64_t Spans::look_up_word(const T* values) const {
  const auto base = static_cast<uint64_t>(low_.front());
  const uint64_t beyond = buckets_.size() - 1;
  const int shift = shift_;
  const uint8_t* buckets = buckets_.data();
  uint8_t found[64];
  for (size_t j = 0; j < 64; ++j)  // nothing here guesses: values come in any order
    found[j] = buckets[std::min((static_cast<uint64_t>(key(values[j])) - base) >> shift, beyond)];
  uint64_t word = low_bits(found);
  if (shift == 0) return word;
  for (uint8_t& each : found) each = static_cast<uint8_t>(each >> 1);
  for (uint64_t left = low_bits(found); left; left &= left - 1) {
    const auto j = static_cast<size_t>(std::countr_zero(left));
    const int64_t k = key(values[j]);
    size_t i = first_[(static_cast<uint64_t>(k) - base) >> shift];
    while (i < low_.size() && high_[i] < k) ++i;
    word |= static_cast<uint64_t>(i < low_.size() && low_[i] <= k) << j;
  }
  return word;
}

template <typename T> void Spans::look_up(const T* values, size_t n, uint64_t* bits) const {
  size_t i = 0;
  for (; i + 64 <= n; i += 64) bits[i / 64] = look_up_word(values + i);
  if (i < n) {
    T rest[64] = {};
    std::copy_n(values + i, n - i, rest);
    bits[i / 64] = look_up_word(rest) & last_word(n);
  }
}

void Spans::inside(Stored stored, const void* values, size_t n, uint64_t* bits) const {
  const size_t bytes = stored_bytes(stored);
  if (low_.empty()) {
    std::fill_n(bits, (n + 63) / 64, 0);
  } else if (low_.size() <= most_spans(bytes)) {
    const kernels::Table& table = kernels::active();
    if (stored == Stored::kFloat64)
      table.float_in_spans(values, n, float_low_.data(), float_high_.data(), low_.size(), bits);
    else
      table.whole_in_spans[std::countr_zero(bytes)](values, n, low_.data(), high_.data(), low_.size(), bits);
  } else {
    switch (stored) {
      case Stored::kInt8: return look_up(static_cast<const int8_t*>(values), n, bits);
      case Stored::kInt16: return look_up(static_cast<const int16_t*>(values), n, bits);
      case Stored::kInt32: return look_up(static_cast<const int32_t*>(values), n, bits);
      case Stored::kInt64: return look_up(static_cast<const int64_t*>(values), n, bits);
      case Stored::kUint8: return look_up(static_cast<const uint8_t*>(values), n, bits);
      case Stored::kUint16: return look_up(static_cast<const uint16_t*>(values), n, bits);
      case Stored::kFloat64: return look_up(static_cast<const double*>(values), n, bits);
    }
  }
}

void test_spans(const Column& column, const Spans& spans, bool inverted, bool nulls, uint64_t* bits, size_t threads) {
  const auto* bytes = static_cast<const uint8_t*>(column.values);
  by_blocks(column.n, threads, [&](size_t first, size_t n) {
    uint64_t* out = bits + first / 64;
    const size_t words = (n + 63) / 64;
    spans.inside(column.stored, bytes + first * stored_bytes(column.stored), n, out);
    if (inverted)
      for (size_t w = 0; w < words; ++w) out[w] = ~out[w];
    if (column.valid) {
      const uint64_t* valid = column.valid + first / 64;
      const uint64_t also = nulls ? ~uint64_t{0} : 0;
      for (size_t w = 0; w < words; ++w) out[w] = (out[w] & valid[w]) | (also & ~valid[w]);
    }
    out[words - 1] &= last_word(n);
  });
}

void test_lists(const Column& elements, int64_t code, const int64_t* offsets, size_t rows, const uint64_t* valid,
                bool inverted, uint64_t* bits, size_t threads) {
  const Spans one(&code, &code, 1);
  const auto* bytes = static_cast<const uint8_t*>(elements.values);
  by_blocks(rows, threads, [&](size_t first, size_t n) {
    uint64_t* out = bits + first / 64;
    const size_t words = (n + 63) / 64;
    std::fill_n(out, words, 0);
    const auto begin = static_cast<size_t>(offsets[first]), end = static_cast<size_t>(offsets[first + n]);
    std::vector<uint64_t> found((end - begin + 63) / 64);
    one.inside(elements.stored, bytes + begin * stored_bytes(elements.stored), end - begin, found.data());
    size_t row = 0;
    for (size_t w = 0; w < found.size(); ++w)
      for (uint64_t left = found[w]; left; left &= left - 1) {
        const auto at = static_cast<int64_t>(begin + w * 64 + static_cast<size_t>(std::countr_zero(left)));
        while (offsets[first + row + 1] <= at) ++row;
        out[row / 64] |= uint64_t{1} << (row % 64);
      }
    for (size_t w = 0; w < words; ++w) {
      if (inverted) out[w] = ~out[w];
      if (valid) out[w] &= valid[first / 64 + w];
    }
    out[words - 1] &= last_word(n);
  });
}

size_t count(const uint64_t* bits, size_t words) {
  size_t total = 0;
  for (size_t w = 0; w < words; ++w) total += static_cast<size_t>(std::popcount(bits[w]));
  return total;
}

}  // namespace nearly::filters
