#include "base/bits.hpp"

#include <algorithm>

namespace nearly {

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

void nodes_of(const uint64_t* bits, size_t n_words, const Row* nodes, size_t n_rows, size_t n_nodes, uint64_t* out) {
  // Rows that follow one another mostly hang on nodes that do: a word is written when it is left.
  size_t at = 0;
  uint64_t word = 0;
  for_each_set(bits, std::min(n_words, (n_rows + 63) / 64), [&](Row row) {
    const Row node = row < n_rows ? __atomic_load_n(nodes + row, __ATOMIC_ACQUIRE) : kNone;
    if (node >= n_nodes) return;
    if (node / 64 != at) {
      out[at] |= word;
      at = node / 64;
      word = 0;
    }
    word |= uint64_t{1} << (node % 64);
  });
  if (word) out[at] |= word;
}

}  // namespace nearly
