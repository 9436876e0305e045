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

// How many are set.
size_t count_set(const uint64_t* bits, size_t words);

// Those below n that are set, ascending.
std::vector<Row> set_below(const uint64_t* bits, size_t n_words, size_t n);

// At most `most` of these from all over, ascending.
std::vector<Row> some_below(const uint64_t* bits, size_t n_words, size_t n, size_t most);

// Where rows hang: most that follow one another hang on nodes that do, as long as few are equal.
struct Hanging {
  struct Run {
    Row row, node, n;
  };
  std::vector<Run> runs;        // of several such rows
  std::vector<uint64_t> others;  // a bit a row that hangs, but is in none of these
};
Hanging hanging_of(const Row* nodes, size_t n_rows);

// The nodes below n_nodes on which a row hangs that is set, a bit each: `out` is all zero before. `nodes` says where each of
// n_rows rows hangs, or kNone; `hanging` is made of that, and by its runs many bits are had at once.
void nodes_of(const uint64_t* bits, size_t n_words, const Row* nodes, size_t n_rows, const Hanging& hanging, size_t n_nodes,
              uint64_t* out);

}  // namespace nearly
