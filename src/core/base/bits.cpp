#include "base/bits.hpp"

#include <algorithm>

namespace nearly {

// Set bits of every byte, by adding neighbors: vectors do that without an instruction of their own for it.
size_t count_set(const uint64_t* bits, size_t words) {
  constexpr uint64_t kTwos = 0x5555555555555555, kFours = 0x3333333333333333, kEights = 0x0f0f0f0f0f0f0f0f;
  size_t total = 0;
  for (size_t w = 0; w < words;) {
    uint64_t bytes = 0;
    for (const size_t end = std::min(words, w + 31); w < end; ++w) {  // 31 times 8 fit a byte
      uint64_t x = bits[w];
      x -= x >> 1 & kTwos;
      x = (x & kFours) + (x >> 2 & kFours);
      bytes += (x + (x >> 4)) & kEights;
    }
    constexpr uint64_t kEven = 0x00ff00ff00ff00ff;
    total += ((bytes & kEven) + (bytes >> 8 & kEven)) * 0x0001000100010001 >> 48;
  }
  return total;
}

std::vector<Row> set_below(const uint64_t* bits, size_t n_words, size_t n) {
  n_words = std::min(n_words, (n + 63) / 64);
  std::vector<Row> out;
  out.reserve(1024);
  for_each_set(bits, n_words, [&](Row v) { out.push_back(v); });
  while (!out.empty() && out.back() >= n) out.pop_back();
  if (out.capacity() > out.size() + out.size() / 4 + 1024) out.shrink_to_fit();  // they may be kept for long
  return out;
}

std::vector<Row> some_below(const uint64_t* bits, size_t n_words, size_t n, size_t most) {
  n_words = std::min(n_words, (n + 63) / 64);
  std::vector<Row> out;
  for (size_t part = 0, i = 0; part < most; ++part) {
    i = std::max(i, part * n_words / most);
    while (i < n_words && !bits[i]) ++i;
    if (i == n_words) break;
    const size_t found = i * 64 + static_cast<size_t>(__builtin_ctzll(bits[i++]));
    if (found < n) out.push_back(static_cast<Row>(found));
  }
  return out;
}

Hanging hanging_of(const Row* nodes, size_t n_rows) {
  constexpr size_t kFewest = 4;  // of a run
  Hanging made;
  made.others.resize((n_rows + 63) / 64);
  for (size_t row = 0, end; row < n_rows; row = end) {
    const auto node = [&](size_t i) { return __atomic_load_n(nodes + i, __ATOMIC_ACQUIRE); };
    const Row first = node(row);
    end = row + 1;
    if (first == kNone) continue;
    while (end < n_rows && node(end) == first + (end - row)) ++end;
    if (end - row >= kFewest) {
      made.runs.push_back({static_cast<Row>(row), first, static_cast<Row>(end - row)});
    } else {
      for (; row < end; ++row) made.others[row / 64] |= uint64_t{1} << (row % 64);
    }
  }
  return made;
}

namespace {

// Sets the bits from `to` on that are set from `from` on.
void copy_bits(const uint64_t* bits, size_t from, size_t n, uint64_t* out, size_t to) {
  for (size_t done = 0, take; done < n; done += take) {  // within a word on either side
    const size_t a = (from + done) % 64, b = (to + done) % 64;
    take = std::min({n - done, 64 - a, 64 - b});
    const uint64_t mask = take == 64 ? ~uint64_t{0} : (uint64_t{1} << take) - 1;
    out[(to + done) / 64] |= (bits[(from + done) / 64] >> a & mask) << b;
  }
}

}  // namespace

void nodes_of(const uint64_t* bits, size_t n_words, const Row* nodes, size_t n_rows, const Hanging& hanging, size_t n_nodes,
              uint64_t* out) {
  n_words = std::min(n_words, (n_rows + 63) / 64);
  const auto set = [&](Row row) {
    const Row node = row < n_rows ? __atomic_load_n(nodes + row, __ATOMIC_ACQUIRE) : kNone;
    if (node < n_nodes) out[node / 64] |= uint64_t{1} << (node % 64);
  };
  if (count_set(bits, n_words) <= hanging.runs.size() + n_words) return for_each_set(bits, n_words, set);
  for (const Hanging::Run& run : hanging.runs) {
    if (run.row >= 64 * n_words || run.node >= n_nodes) continue;
    copy_bits(bits, run.row, std::min({size_t{run.n}, 64 * n_words - run.row, n_nodes - run.node}), out, run.node);
  }
  for (size_t i = 0; i < n_words; ++i)
    for (uint64_t left = bits[i] & hanging.others[i]; left; left &= left - 1)
      set(static_cast<Row>(i * 64) + static_cast<Row>(__builtin_ctzll(left)));
}

}  // namespace nearly
