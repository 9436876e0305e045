// Scans by codes whose estimates have bounds: vectors are compared only where the bound does not tell that they are beyond
// the k nearest so far (Gao & Long, SIGMOD 2024, section 4).
#pragma once
#include <functional>

#include "lists/scan.hpp"

namespace nearly::lists {

// What the codes know of a query's distances; see quant::Bounded.
struct Bounds {
  size_t prepared_bytes;
  std::function<void(const void* query, void* prepared)> prepare;
  std::function<void(const void* prepared, Row first, size_t n, float bound, float* out)> lower;
};

// As `scan`, of all nodes below n_nodes; a true neighbor is missed where its bound is wrong, and only there.
Compared scan_bounded(const Scorer& scorer, const Bounds& bounds, const Rows& rows, size_t n_nodes, const Request& request,
                      const Poll& poll);

}  // namespace nearly::lists
