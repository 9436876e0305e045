#include "filters/spans.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/table.hpp"

namespace nearly::filters {
namespace {

constexpr size_t kBlock = size_t{1} << 15;    // rows whose bits are made before they meet those of `valid`
constexpr size_t kApart = 4;                  // words without a row to find out that are worth passing over
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

int64_t next(int64_t x) { return x + 1; }
int64_t previous(int64_t x) { return x - 1; }
double next(double x) { return std::nextafter(x, std::numeric_limits<double>::infinity()); }
double previous(double x) { return std::nextafter(x, -std::numeric_limits<double>::infinity()); }

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

template <typename T> void find_zones(const T* values, size_t n, Zones& zones) {
  for (size_t first = 0; first < n; first += Zones::kRows) {
    const T* x = values + first;
    const size_t rows = std::min(Zones::kRows, n - first);
    T low = x[0], high = x[0];
    bool numbers = true;
    for (size_t i = 0; i < rows; ++i) {
      low = x[i] < low ? x[i] : low;
      high = x[i] > high ? x[i] : high;
      numbers &= x[i] == x[i];
    }
    // What is no number is in no span, so that such a zone is never settled. (Columns hold none where there is a value.)
    zones.low.push_back(numbers ? key(low) : std::numeric_limits<int64_t>::min());
    zones.high.push_back(numbers ? key(high) : std::numeric_limits<int64_t>::max());
  }
}

// Calls body(first, rows, zone) for all zones, on threads.
template <typename Body> void by_zones(size_t n, size_t threads, Body body) {
  by_blocks(n, threads, [&](size_t begin, size_t rows) {
    for (size_t first = begin; first < begin + rows; first += Zones::kRows)
      body(first, std::min(Zones::kRows, begin + rows - first), first / Zones::kRows);
  });
}

Verdict verdict(const Column& column, const Spans& spans, size_t zone) {
  return column.zones ? spans.within(column.zones->low[zone], column.zones->high[zone]) : Verdict::kSome;
}

// out = which of n rows from `first` on pass, all of one zone.
void find(const Column& column, const Spans& spans, bool nulls, Verdict settled, size_t first, size_t n, uint64_t* out) {
  const size_t words = (n + 63) / 64;
  if (settled == Verdict::kSome)
    spans.inside(static_cast<const uint8_t*>(column.values) + first * stored_bytes(spans.stored()), n, out);
  else
    std::fill_n(out, words, settled == Verdict::kAll ? ~uint64_t{0} : 0);
  if (column.valid) {
    const uint64_t* valid = column.valid + first / 64;
    const uint64_t also = nulls ? ~uint64_t{0} : 0;
    for (size_t w = 0; w < words; ++w) out[w] = (out[w] & valid[w]) | (also & ~valid[w]);
  }
  out[words - 1] &= last_word(n);
}

// The same joined with what `out` holds. Words that are settled by that are passed over.
void join(const Column& column, const Spans& spans, bool nulls, Verdict settled, bool all, size_t first, size_t n,
          uint64_t* out) {
  const uint64_t done = all ? 0 : ~uint64_t{0};
  const size_t words = (n + 63) / 64;
  uint64_t found[Zones::kRows / 64];
  for (size_t w = 0, end; w < words; w = end) {
    end = w + 1;
    if (out[w] == done) continue;
    for (size_t next = end; next < std::min(words, end + kApart); ++next)
      if (out[next] != done) end = next + 1;
    find(column, spans, nulls, settled, first + w * 64, std::min(end * 64, n) - w * 64, found);
    for (size_t i = w; i < end; ++i) out[i] = all ? out[i] & found[i - w] : out[i] | found[i - w];
  }
}

}  // namespace

Spans::Spans(Stored stored, const int64_t* low, const int64_t* high, size_t n) : stored_(stored) {
  const size_t bits = 8 * stored_bytes(stored);
  const bool positive = stored == Stored::kUint8 || stored == Stored::kUint16;
  const auto top = static_cast<int64_t>((uint64_t{1} << (positive ? bits : bits - 1)) - 1);
  keep(low, high, n, positive ? 0 : -top - 1, top, low_, high_);
  set_buckets();
}

Spans::Spans(const double* low, const double* high, size_t n) : stored_(Stored::kFloat64) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  keep(low, high, n, -kInfinity, kInfinity, float_low_, float_high_);
  low_.resize(float_low_.size()), high_.resize(float_low_.size());
  std::transform(float_low_.begin(), float_low_.end(), low_.begin(), ordered);
  std::transform(float_high_.begin(), float_high_.end(), high_.begin(), ordered);
  set_buckets();
}

// Takes spans over, within the least and the most that a value may be.
template <typename T>
void Spans::keep(const T* low, const T* high, size_t n, T least, T most, std::vector<T>& lows, std::vector<T>& highs) {
  while (n > 0 && high[0] < least) ++low, ++high, --n;
  while (n > 0 && low[n - 1] > most) --n;
  outside_ = n > 1 && low[0] <= least && high[n - 1] >= most;
  for (size_t i = outside_; i < n; ++i) {
    const T from = outside_ ? next(high[i - 1]) : std::max(low[i], least);
    const T to = outside_ ? previous(low[i]) : std::min(high[i], most);
    if (from <= to) lows.push_back(from), highs.push_back(to);
  }
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
    bits[i / 64] = look_up_word(rest);
  }
}

void Spans::inside(const void* values, size_t n, uint64_t* bits) const {
  const size_t bytes = stored_bytes(stored_), words = (n + 63) / 64;
  if (low_.empty()) {
    std::fill_n(bits, words, 0);
  } else if (low_.size() <= most_spans(bytes)) {
    const kernels::Table& table = kernels::active();
    if (stored_ == Stored::kFloat64)
      table.float_in_spans(values, n, float_low_.data(), float_high_.data(), low_.size(), bits);
    else
      table.whole_in_spans[std::countr_zero(bytes)](values, n, low_.data(), high_.data(), low_.size(), bits);
  } else {
    switch (stored_) {
      case Stored::kInt8: look_up(static_cast<const int8_t*>(values), n, bits); break;
      case Stored::kInt16: look_up(static_cast<const int16_t*>(values), n, bits); break;
      case Stored::kInt32: look_up(static_cast<const int32_t*>(values), n, bits); break;
      case Stored::kInt64: look_up(static_cast<const int64_t*>(values), n, bits); break;
      case Stored::kUint8: look_up(static_cast<const uint8_t*>(values), n, bits); break;
      case Stored::kUint16: look_up(static_cast<const uint16_t*>(values), n, bits); break;
      case Stored::kFloat64: look_up(static_cast<const double*>(values), n, bits); break;
    }
  }
  if (outside_)
    for (size_t w = 0; w < words; ++w) bits[w] = ~bits[w];
}

Verdict Spans::within(int64_t low, int64_t high) const {
  const auto first = std::lower_bound(high_.begin(), high_.end(), low);  // the first span that does not end before
  const auto i = static_cast<size_t>(first - high_.begin());
  if (i == high_.size() || low_[i] > high) return outside_ ? Verdict::kAll : Verdict::kNone;
  if (low_[i] <= low && high <= high_[i]) return outside_ ? Verdict::kNone : Verdict::kAll;
  return Verdict::kSome;
}

Zones zones_of(Stored stored, const void* values, size_t n) {
  Zones zones;
  switch (stored) {
    case Stored::kInt8: find_zones(static_cast<const int8_t*>(values), n, zones); break;
    case Stored::kInt16: find_zones(static_cast<const int16_t*>(values), n, zones); break;
    case Stored::kInt32: find_zones(static_cast<const int32_t*>(values), n, zones); break;
    case Stored::kInt64: find_zones(static_cast<const int64_t*>(values), n, zones); break;
    case Stored::kUint8: find_zones(static_cast<const uint8_t*>(values), n, zones); break;
    case Stored::kUint16: find_zones(static_cast<const uint16_t*>(values), n, zones); break;
    case Stored::kFloat64: find_zones(static_cast<const double*>(values), n, zones); break;
  }
  return zones;
}

void test_spans(const Column& column, const Spans& spans, bool nulls, Joined joined, uint64_t* bits, size_t threads) {
  by_zones(column.n, threads, [&](size_t first, size_t n, size_t zone) {
    const Verdict settled = verdict(column, spans, zone);
    if (joined == Joined::kAlone)
      find(column, spans, nulls, settled, first, n, bits + first / 64);
    else
      join(column, spans, nulls, settled, joined == Joined::kAnd, first, n, bits + first / 64);
  });
}

void test_all(const std::vector<Test>& tests, uint64_t* bits, size_t threads) {
  by_zones(tests[0].column.n, threads, [&](size_t first, size_t n, size_t zone) {
    uint64_t* out = bits + first / 64;
    const auto none = [&](const Test& test) { return verdict(test.column, test.spans, zone) == Verdict::kNone; };
    if (std::any_of(tests.begin(), tests.end(), none)) {
      std::fill_n(out, (n + 63) / 64, 0);
      return;
    }
    find(tests[0].column, tests[0].spans, false, verdict(tests[0].column, tests[0].spans, zone), first, n, out);
    for (size_t i = 1; i < tests.size(); ++i)
      join(tests[i].column, tests[i].spans, false, verdict(tests[i].column, tests[i].spans, zone), true, first, n, out);
  });
}

void test_lists(const void* elements, const Spans& spans, const int64_t* offsets, size_t rows, const uint64_t* valid,
                bool inverted, uint64_t* bits, size_t threads) {
  const auto* bytes = static_cast<const uint8_t*>(elements);
  by_blocks(rows, threads, [&](size_t first, size_t n) {
    uint64_t* out = bits + first / 64;
    const size_t words = (n + 63) / 64;
    std::fill_n(out, words, 0);
    const auto begin = static_cast<size_t>(offsets[first]), end = static_cast<size_t>(offsets[first + n]);
    std::vector<uint64_t> found((end - begin + 63) / 64);
    spans.inside(bytes + begin * stored_bytes(spans.stored()), end - begin, found.data());
    if (!found.empty()) found.back() &= last_word(end - begin);
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

void set_bits(const uint32_t* rows, size_t n, uint64_t* bits) {
  for (size_t i = 0; i < n; ++i) bits[rows[i] / 64] |= uint64_t{1} << (rows[i] % 64);
}

}  // namespace nearly::filters
