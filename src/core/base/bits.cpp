#include "base/bits.hpp"

#include <algorithm>

namespace nearly {

std::vector<Row> set_below(const uint64_t* bits, size_t n_words, size_t n) {
  n_words = std::min(n_words, (n + 63) / 64);
  size_t count = 0;
  for (size_t i = 0; i < n_words; ++i)
    if (bits[i]) count += static_cast<size_t>(__builtin_popcountll(bits[i]));  // a call, where there may be no instruction
  std::vector<Row> out(count);
  Row* to = out.data();
  for_each_set(bits, n_words, [&](Row v) { *to++ = v; });
  while (!out.empty() && out.back() >= n) out.pop_back();
  return out;
}

void nodes_of(const uint64_t* bits, size_t n_words, const Row* nodes, size_t n_rows, size_t n_nodes, uint64_t* out) {
  for_each_set(bits, n_words, [&](Row row) {
    if (row >= n_rows) return;
    const Row node = __atomic_load_n(nodes + row, __ATOMIC_ACQUIRE);
    if (node < n_nodes) out[node / 64] |= uint64_t{1} << (node % 64);
  });
}

}  // namespace nearly
