// Wide lists, for walks that hop over what does not pass a filter.
#pragma once
#include "base/threads.hpp"
#include "graph/search.hpp"

namespace nearly::graph {

// Writes, for some nodes, the nearest of what two steps of a layer lead to, nearest first: so that a walk among what passes
// reads one list where it would read those of all neighbors that do not pass (ACORN-gamma: Patel et al., SIGMOD 2024,
// section 5; there candidates are those of the insertion). A node whose list in the layer changed later keeps its wide one.
void widen(const Layer& layer, Layer& wide, const Scorer& scorer, const Row* nodes, size_t n, size_t n_nodes, size_t threads,
           const Poll& poll);

}  // namespace nearly::graph
