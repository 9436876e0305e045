#include "graph/widen.hpp"

#include <algorithm>

namespace nearly::graph {
namespace {

constexpr size_t kChunk = 64;   // nodes that a thread takes at a time
constexpr size_t kAhead = 128;  // nodes asked for before they are scored

// What two steps lead to, each once, without the node itself.
void two_steps(const Layer& layer, Row node, size_t n_nodes, std::vector<uint64_t>& seen, std::vector<Row>& met) {
  const kernels::Table& kernels = kernels::active();
  const size_t degree = layer.degree();
  met.resize((degree + 1) * degree + 2);
  seen[node / 64] |= uint64_t{1} << (node % 64);
  size_t n = kernels.unseen(layer.list(node), degree, n_nodes, seen.data(), met.data());
  const size_t first = n;
  for (size_t i = 0; i < first; ++i) layer.prefetch(met[i]);
  for (size_t i = 0; i < first; ++i)
    n += kernels.unseen(layer.list(met[i]), degree, n_nodes, seen.data(), met.data() + n);
  met.resize(n);
  for (const Row v : met) seen[v / 64] = 0;
  seen[node / 64] = 0;
}

}  // namespace

void widen(const Layer& layer, Layer& wide, const Scorer& scorer, const Row* nodes, size_t n, size_t n_nodes, size_t threads,
           const Poll& poll) {
  parallel_for(n, kChunk, threads, [&](size_t begin, size_t end) {
    std::vector<uint64_t> seen((n_nodes + 63) / 64, 0);
    std::vector<Row> met;
    std::vector<float> distance;
    std::vector<Candidate> near;
    Scratch& scratch = Scratch::of_this_thread();
    void* prepared = scratch.prepared(scorer.prepared_bytes());
    for (size_t i = begin; i < end; ++i) {
      two_steps(layer, nodes[i], n_nodes, seen, met);
      scorer.prepare_row(nodes[i], prepared);
      distance.resize(met.size());
      scorer.prefetch(met.data(), std::min(kAhead, met.size()));
      for (size_t at = 0; at < met.size(); at += kAhead) {
        const size_t block = std::min(kAhead, met.size() - at), next = at + block;
        scorer.prefetch(met.data() + next, std::min(kAhead, met.size() - next));
        scorer.score(prepared, met.data() + at, block, std::numeric_limits<float>::infinity(), distance.data() + at);
      }
      near.resize(met.size());
      for (size_t j = 0; j < met.size(); ++j) near[j] = candidate(distance[j], met[j]);
      const size_t kept = std::min(near.size(), wide.degree());
      std::partial_sort(near.begin(), near.begin() + static_cast<ptrdiff_t>(kept), near.end());
      for (size_t j = 0; j < kept; ++j) met[j] = node_of(near[j]);
      wide.write(nodes[i], met.data(), kept);
    }
  }, poll);
}

}  // namespace nearly::graph
