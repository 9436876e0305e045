// Deterministic building: batches search a frozen graph, then every list is written by one task.
// Blelloch et al. (ParlayANN, PPoPP 2024) for the batches; Subramanya et al. (DiskANN, NeurIPS 2019) for the pruning;
// Gollapudi et al. (Filtered-DiskANN, WWW 2023, sections 3 and 4) for what labels change in both.
#pragma once
#include <vector>

#include "base/scorer.hpp"
#include "base/threads.hpp"
#include "graph/labels.hpp"
#include "graph/layer.hpp"
#include "graph/search.hpp"

namespace nearly::graph {

struct BuildRules {
  size_t beam = 100;        // L in DiskANN, ef_construction in HNSW
  size_t new_degree = 32;   // most edges a new node starts with: the layer's degree, or M in HNSW
  size_t max_candidates = 500;
  float alpha = 1.2f;       // on the distance that the scorer gives: squared for l2
  bool keep_old = false;    // a node that has a list already keeps it among its candidates (a second pass)
  bool fill = false;        // lists shorter than allowed are filled up with the nearest pruned ones
  size_t threads = 0;
  const Labels* labels = nullptr;  // that walks will keep within
};

struct Neighbor {
  float distance;
  Row node;
};

// Keeps of `candidates` (any order, repeats allowed, without the node itself) at most `limit`, nearest first, each kept
// only if no kept one is closer to it by the factor a, for a = 1 and then, while places are left, for a = alpha. Where
// there are labels, only a kept one that has all labels which the candidate shares with the node counts.
size_t prune(const Scorer& scorer, Row node, const std::vector<Neighbor>& candidates, size_t limit, const BuildRules& rules,
             Row* out);

// Inserts nodes[0..n) into the layer, whose first n_nodes nodes may be met. starts holds one start a node, which is moved
// to the nearest node found. Nodes that the layer does not hold are searched for only (with a beam of 1).
void insert_batch(Layer& layer, const Scorer& scorer, const Row* nodes, size_t n, size_t n_nodes, std::vector<Row>& starts,
                  const std::vector<Row>& entries, const BuildRules& rules, const Poll& poll);

// Batch limits for n new nodes on a graph of n_old, doubling from 1 up to a share of what stands: ends of batches.
std::vector<size_t> batch_ends(size_t n_old, size_t n_new);

// Nodes of the layer below n_nodes that no walk from `entries` reaches.
std::vector<Row> unreachable(const Layer& layer, const std::vector<Row>& entries, const std::vector<bool>& wanted,
                             size_t n_nodes, const Poll& poll);

// Gives every wanted node that cannot be reached an edge from a near node that can; what cannot be linked without
// cutting off others is appended to entries.
void connect(Layer& layer, const Scorer& scorer, std::vector<Row>& entries, const std::vector<bool>& wanted,
             size_t n_nodes, size_t beam, const Poll& poll);

// The same within each label, by its entries; returns how many nodes remain that none of them leads to.
size_t connect_labels(Layer& layer, const Scorer& scorer, Labels& labels, const std::vector<bool>& wanted, size_t n_nodes,
                      size_t beam, const Poll& poll);

// Removes the nodes marked dead from all lists: a list that named one takes over the dead one's neighbors and is pruned.
void consolidate(Layer& layer, const Scorer& scorer, const std::vector<bool>& dead, size_t n_nodes,
                 const BuildRules& rules, const Poll& poll);

}  // namespace nearly::graph
