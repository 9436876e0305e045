#include "graph/build.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nearly::graph {
namespace {

constexpr size_t kGrain = 16;
// A walk within a label has a pool so many times narrower than the one among all, and is made for so many labels of a
// node, those that fewest have. Levers table of benchmarks/README.md.
constexpr size_t kLabelBeam = 4, kSearched = 16;

// Memory for pruning, a thread's own.
struct PruneScratch {
  std::vector<Candidate> sorted;
  std::vector<float> own, factor, distance;  // of the open candidates: to the node, own / nearest kept, to the last kept
  std::vector<Row> open;
  std::vector<uint64_t> shared;  // labels of the node that an open candidate has, too
  Scratch query;  // its prepared buffer holds kept nodes; searches use the thread's other scratch
};

// Not inlined: GCC would ask for the thread's address again and again within loops.
[[gnu::noinline]] PruneScratch& prune_scratch() {
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

size_t prune(const Scorer& scorer, Row node, const std::vector<Neighbor>& candidates, size_t limit, const BuildRules& rules,
             Row* out) {
  const float alpha = rules.alpha;
  PruneScratch& s = prune_scratch();
  s.sorted.clear();
  for (const Neighbor& c : candidates)
    if (!std::isnan(c.distance)) s.sorted.push_back(candidate(c.distance, c.node));  // sums that overflowed are nobody's
  std::sort(s.sorted.begin(), s.sorted.end());
  s.sorted.erase(std::unique(s.sorted.begin(), s.sorted.end()), s.sorted.end());
  const Labels::Set labels = rules.labels ? rules.labels->of(node).last(Labels::kShared) : Labels::Set{};
  const size_t most = rules.max_candidates * (1 + labels.size());
  if (s.sorted.size() > most) s.sorted.resize(most);
  size_t n = s.sorted.size();
  s.open.resize(n);
  s.own.resize(n);
  s.factor.assign(n, 0.0f);
  s.distance.resize(n);
  Row* open = s.open.data();
  float *own = s.own.data(), *factor = s.factor.data(), *between = s.distance.data();
  for (size_t i = 0; i < n; ++i) open[i] = node_of(s.sorted[i]), own[i] = distance_of(s.sorted[i]);
  uint64_t* shared = nullptr;
  if (labels.size()) {
    s.shared.resize(n);
    shared = s.shared.data();
    for (size_t i = 0; i < n; ++i) shared[i] = rules.labels->shared(labels, open[i]);
  }
  void* prepared = s.query.prepared(scorer.prepared_bytes());
  constexpr float kTaken = std::numeric_limits<float>::infinity();
  size_t kept = 0;
  for (const float a : {1.0f, alpha}) {
    for (size_t i = 0; i < n && kept < limit;) {
      if (factor[i] > a) {
        ++i;
        continue;
      }
      const Row taken = out[kept++] = open[i];
      const size_t rest = i + 1;
      if (kept == limit || rest == n) {
        factor[i++] = kTaken;
        continue;
      }
      scorer.prepare_row(taken, prepared);
      scorer.score(prepared, open + rest, n - rest, kTaken, between + rest);
      for (size_t j = rest; shared && j < n; ++j)
        if (shared[j] & ~shared[i]) between[j] = kTaken;  // as far as can be
      for (size_t j = rest; j < n; ++j) {
        // A ratio means something between positive distances only. Under inner product they are negative, and codes may
        // put two nodes at 0: then the nearer one to the kept node is enough.
        const float ratio = own[j] > 0 && between[j] > 0 ? own[j] / between[j] : between[j] <= own[j] ? kTaken : 0.0f;
        factor[j] = std::max(factor[j], ratio);
      }
      // The kept one and all that it covers leave; what stays keeps its order.
      size_t left = i;
      for (size_t j = rest; j < n; ++j) {
        open[left] = open[j];
        own[left] = own[j];
        factor[left] = factor[j];
        if (shared) shared[left] = shared[j];
        left += factor[j] <= alpha;
      }
      n = left;
    }
    if (alpha <= 1.0f) break;
  }
  if (rules.fill) {
    for (size_t i = 0; i < s.sorted.size() && kept < limit; ++i) {
      const Row near = node_of(s.sorted[i]);
      if (std::find(out, out + kept, near) == out + kept) out[kept++] = near;
    }
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
      for (const Candidate c : scratch.pool)
        if (!(c & 1)) take(c);  // the others were expanded
      if (!scratch.pool.empty()) starts[i] = node_of(scratch.pool[0]);
      if (rules.labels) {
        effort.width = std::max<size_t>(1, rules.beam / kLabelBeam);
        for (const Labels::Label label : rules.labels->of(node).last(kSearched)) {
          from = rules.labels->entries(label);
          search(layer, scorer, prepared, from.data(), from.size(), n_nodes, effort, true, scratch,
                 {nullptr, 0, rules.labels, label});
          for (const Candidate c : scratch.expanded) take(c);
        }
      }
      if (rules.keep_old) {
        std::vector<Row> old(degree);
        old.resize(layer.read(node, old.data()));
        distances_to(scorer, node, old, candidates);
      }
      counts[i] = static_cast<uint32_t>(prune(scorer, node, candidates, std::min(rules.new_degree, degree), rules,
                                              fresh.data() + i * degree));
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
      size = prune(scorer, target, candidates, degree, rules, list.data());
      layer.write(target, list.data(), size);
    }
  };
  parallel_for(groups.size() - 1, kGrain, rules.threads, link, poll);
}

}  // namespace nearly::graph
