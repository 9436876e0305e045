// The nodes of a scan, some at a time, for queries that meet them together.
#pragma once
#include <algorithm>
#include <vector>

#include "base/rows.hpp"
#include "base/scorer.hpp"
#include "base/threads.hpp"

namespace nearly::lists {

constexpr size_t kMostNodes = 256;  // of a block

// Calls meet(nodes, n) for all that hold rows, at most `block` at a time, those that come next being asked for; returns how
// many there were. Rows come before vectors: a place that is free now may be filled while we look.
template <typename Meet>
size_t meet_nodes(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, size_t block,
                  const Poll& poll, Meet meet) {
  const size_t total = only ? only->size() : n_nodes;
  Row nodes[2][kMostNodes];  // those at hand, and those asked for meanwhile
  size_t count[2] = {0, 0}, met = 0;
  const auto take = [&](size_t at, size_t side) {
    count[side] = 0;
    for (size_t i = at, end = std::min(total, at + block); i < end; ++i) {
      nodes[side][count[side]] = only ? (*only)[i] : static_cast<Row>(i);  // kept or overwritten by the next
      count[side] += rows.first(nodes[side][count[side]]) != kNone;
    }
    scorer.prefetch(nodes[side], count[side]);
  };
  take(0, 0);
  for (size_t at = 0, side = 0; at < total; at += block, side = 1 - side) {
    take(at + block, 1 - side);
    if (count[side]) meet(nodes[side], count[side]);
    met += count[side];
    poll_if_due(poll);
  }
  return met;
}

}  // namespace nearly::lists
