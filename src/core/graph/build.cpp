#include "graph/build.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nearly::graph {
namespace {

constexpr size_t kGrain = 16;

bool nearer(const Neighbor& a, const Neighbor& b) {
  return a.distance != b.distance ? a.distance < b.distance : a.node < b.node;
}

// Memory for pruning, a thread's own.
struct PruneScratch {
  std::vector<float> factor, distance;
  std::vector<Row> rows;
  std::vector<uint32_t> open;
  Scratch query;  // its prepared buffer holds kept nodes; searches use the thread's other scratch
};

PruneScratch& prune_scratch() {
  thread_local PruneScratch scratch;
  return scratch;
}

void distances_to(const Scorer& scorer, Row from, const std::vector<Row>& rows, std::vector<Neighbor>& out) {
  PruneScratch& s = prune_scratch();
  void* prepared = s.query.prepared(scorer.prepared_bytes());
  scorer.prepare_row(from, prepared);
  s.distance.resize(rows.size());
  scorer.prefetch(rows.data(), rows.size());
  scorer.score(prepared, rows.data(), rows.size(), std::numeric_limits<float>::infinity(), s.distance.data());
  for (size_t i = 0; i < rows.size(); ++i) out.push_back({s.distance[i], rows[i]});
}

}  // namespace

size_t prune(const Scorer& scorer, std::vector<Neighbor>& candidates, size_t limit, float alpha, size_t max_candidates,
             bool fill, Row* out) {
  std::erase_if(candidates, [](const Neighbor& c) { return std::isnan(c.distance); });  // sums that overflowed
  std::sort(candidates.begin(), candidates.end(), nearer);
  candidates.erase(std::unique(candidates.begin(), candidates.end(),
                               [](const Neighbor& a, const Neighbor& b) { return a.node == b.node; }),
                   candidates.end());
  const size_t n = std::min(candidates.size(), max_candidates);
  constexpr float kTaken = std::numeric_limits<float>::infinity();
  PruneScratch& s = prune_scratch();
  s.factor.assign(n, 0.0f);
  size_t kept = 0;
  for (const float a : {1.0f, alpha}) {
    for (size_t i = 0; i < n && kept < limit; ++i) {
      if (s.factor[i] > a) continue;
      out[kept++] = candidates[i].node;
      s.factor[i] = kTaken;
      if (kept == limit) break;
      s.rows.clear();
      s.open.clear();
      for (size_t j = i + 1; j < n; ++j)
        if (s.factor[j] <= alpha) {
          s.rows.push_back(candidates[j].node);
          s.open.push_back(static_cast<uint32_t>(j));
        }
      if (s.rows.empty()) continue;
      void* prepared = s.query.prepared(scorer.prepared_bytes());
      scorer.prepare_row(candidates[i].node, prepared);
      s.distance.resize(s.rows.size());
      scorer.score(prepared, s.rows.data(), s.rows.size(), kTaken, s.distance.data());
      for (size_t k = 0; k < s.open.size(); ++k) {
        const size_t j = s.open[k];
        const float own = candidates[j].distance, between = s.distance[k];
        // A ratio means something between positive distances only. Under inner product they are negative, and codes may
        // put two nodes at 0: then the nearer one to the kept node is enough.
        const float ratio = own > 0 && between > 0 ? own / between : between <= own ? kTaken : 0.0f;
        s.factor[j] = std::max(s.factor[j], ratio);
      }
    }
    if (alpha <= 1.0f) break;
  }
  if (fill && kept < limit) {
    for (size_t i = 0; i < n && kept < limit; ++i)
      if (std::find(out, out + kept, candidates[i].node) == out + kept) out[kept++] = candidates[i].node;
  }
  return kept;
}

std::vector<size_t> batch_ends(size_t n_old, size_t n_new) {
  // Doubling from 1 relative to this call, so that a new topic finds its own kind; at most 1/50 of what stands, or the
  // batch would be large beside the graph that it is searched in.
  std::vector<size_t> ends;
  size_t size = 1;
  for (size_t at = 0; at < n_new;) {
    const size_t stand = n_old + at, cap = std::max<size_t>(64, stand / 50);
    size = std::min({size, cap, std::max<size_t>(1, stand)});
    at = std::min(n_new, at + size);
    ends.push_back(at);
    size *= 2;
  }
  return ends;
}

void insert_batch(Layer& layer, const Scorer& scorer, const Row* nodes, size_t n, size_t n_nodes, std::vector<Row>& starts,
                  const std::vector<Row>& entries, const BuildRules& rules, const Poll& poll) {
  const size_t degree = layer.degree();
  std::vector<Row> fresh(n * degree, kNone);
  std::vector<uint32_t> counts(n, 0);
  // 1. Every new node searches the frozen graph and chooses its neighbors.
  const auto choose = [&](size_t begin, size_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    std::vector<Neighbor> candidates;
    std::vector<Row> from;
    for (size_t i = begin; i < end; ++i) {
      const Row node = nodes[i];
      void* prepared = scratch.prepared(scorer.prepared_bytes());
      scorer.prepare_row(node, prepared);
      if (!layer.holds(node)) {
        if (starts[i] != kNone) starts[i] = descend(layer, scorer, prepared, starts[i], n_nodes, scratch.work);
        continue;
      }
      from = entries;
      if (starts[i] != kNone) from.push_back(starts[i]);
      Effort effort;
      effort.width = rules.beam;
      search(layer, scorer, prepared, from.data(), from.size(), n_nodes, effort, true, scratch);
      candidates.clear();
      const auto take = [&](Candidate c) {
        if (node_of(c) != node) candidates.push_back({distance_of(c), node_of(c)});
      };
      for (const Candidate c : scratch.expanded) take(c);
      for (const Candidate c : scratch.pool) take(c);
      if (!scratch.pool.empty()) starts[i] = node_of(scratch.pool[0]);
      if (rules.keep_old) {
        std::vector<Row> old(degree);
        old.resize(layer.read(node, old.data()));
        distances_to(scorer, node, old, candidates);
      }
      counts[i] = static_cast<uint32_t>(prune(scorer, candidates, std::min(rules.new_degree, degree), rules.alpha,
                                              rules.max_candidates, rules.fill, fresh.data() + i * degree));
    }
  };
  parallel_for(n, kGrain, rules.threads, choose, poll);
  // 2. The new nodes' own lists.
  std::vector<uint64_t> edges;  // target, source
  for (size_t i = 0; i < n; ++i) {
    if (!layer.holds(nodes[i])) continue;
    layer.write(nodes[i], fresh.data() + i * degree, counts[i]);
    for (size_t e = 0; e < counts[i]; ++e)
      edges.push_back(static_cast<uint64_t>(fresh[i * degree + e]) << 32 | nodes[i]);
  }
  // 3. Edges back, grouped by target: one task owns a list.
  std::sort(edges.begin(), edges.end());
  std::vector<size_t> groups;
  for (size_t i = 0; i < edges.size(); ++i)
    if (i == 0 || edges[i] >> 32 != edges[i - 1] >> 32) groups.push_back(i);
  groups.push_back(edges.size());
  const auto link = [&](size_t begin, size_t end) {
    std::vector<Row> list(degree), added;
    std::vector<Neighbor> candidates;
    for (size_t g = begin; g < end; ++g) {
      const Row target = static_cast<Row>(edges[groups[g]] >> 32);
      size_t size = layer.read(target, list.data());
      added.clear();
      for (size_t e = groups[g]; e < groups[g + 1]; ++e) {
        const Row source = static_cast<Row>(edges[e]);
        if (std::find(list.begin(), list.begin() + size, source) == list.begin() + size) added.push_back(source);
      }
      if (added.empty()) continue;
      if (size + added.size() <= degree) {
        std::copy(added.begin(), added.end(), list.begin() + size);
        layer.write(target, list.data(), size + added.size());
        continue;
      }
      added.insert(added.end(), list.begin(), list.begin() + size);
      candidates.clear();
      distances_to(scorer, target, added, candidates);
      size = prune(scorer, candidates, degree, rules.alpha, rules.max_candidates, rules.fill, list.data());
      layer.write(target, list.data(), size);
    }
  };
  parallel_for(groups.size() - 1, kGrain, rules.threads, link, poll);
}

}  // namespace nearly::graph
