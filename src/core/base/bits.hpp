// Sets of rows or nodes, a bit each, in words of 64.
#pragma once
#include <cstdint>
#include <vector>

#include "base/table.hpp"

namespace nearly {

// Calls take(number) for every bit that is set, ascending.
template <typename Take>
void for_each_set(const uint64_t* bits, size_t n_words, Take take) {
  for (size_t i = 0; i < n_words; ++i)
    for (uint64_t left = bits[i]; left; left &= left - 1)
      take(static_cast<Row>(i * 64) + static_cast<Row>(__builtin_ctzll(left)));
}

// Those below n that are set, ascending.
std::vector<Row> set_below(const uint64_t* bits, size_t n_words, size_t n);

// At most `most` of these from all over, ascending.
std::vector<Row> some_below(const uint64_t* bits, size_t n_words, size_t n, size_t most);

// The nodes below n_nodes on which a row hangs that is set, a bit each: `out` is all zero before. `nodes` says where each of
// n_rows rows hangs, or kNone.
void nodes_of(const uint64_t* bits, size_t n_words, const Row* nodes, size_t n_rows, size_t n_nodes, uint64_t* out);

}  // namespace nearly
