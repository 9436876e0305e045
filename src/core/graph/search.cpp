#include "graph/search.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace nearly::graph {

Scratch::~Scratch() { std::free(prepared_); }

Scratch& Scratch::of_this_thread() {
  thread_local Scratch scratch;
  return scratch;
}

void* Scratch::prepared(size_t bytes) {
  if (bytes > prepared_bytes_) {
    std::free(prepared_);
    prepared_bytes_ = (bytes + 63) / 64 * 64;
    prepared_ = std::aligned_alloc(64, prepared_bytes_);
    if (!prepared_) throw std::bad_alloc();
  }
  return prepared_;
}

constexpr size_t kMaxBlock = 512;

// The state of one search.
struct Walk {
  const Layer& layer;
  const Scorer& scorer;
  const void* prepared;
  size_t n_nodes, width;
  Scratch& scratch;
  size_t size = 0;  // of the pool
  size_t next = 0;  // the first candidate not expanded

  // Leaves no bit behind, also when a scorer throws.
  ~Walk() {
    for (const uint32_t word : scratch.dirty_) scratch.seen_[word] = 0;
    scratch.dirty_.clear();
  }

  void begin(size_t capacity) {
    const size_t words = (n_nodes + 63) / 64;
    if (scratch.seen_.size() < words) scratch.seen_.resize(words, 0);
    if (scratch.pool.size() < capacity + 1) scratch.pool.resize(capacity + 1);
  }

  // True the first time.
  bool mark(Row node) {
    uint64_t& word = scratch.seen_[node / 64];
    const uint64_t bit = uint64_t{1} << (node % 64);
    if (word & bit) return false;
    if (word == 0) scratch.dirty_.push_back(node / 64);
    word |= bit;
    return true;
  }

  float bound() const { return size == width ? distance_of(scratch.pool[size - 1]) : __builtin_huge_valf(); }

  void insert(Candidate c) {
    Candidate* pool = scratch.pool.data();
    if (size == width) {
      if (c >= pool[size - 1]) return;
      --size;
    }
    // From the back: most candidates that get in belong near the end.
    size_t at = size;
    while (at > 0 && pool[at - 1] > c) {
      pool[at] = pool[at - 1];
      --at;
    }
    pool[at] = c;
    ++size;
    if (at < next) next = at;
  }

  void score_block(const Row* rows, size_t n) {
    float distance[kMaxBlock];
    scorer.score(prepared, rows, n, bound(), distance);
    scratch.work.distances += n;
    const uint32_t worst = size == width ? static_cast<uint32_t>(scratch.pool[size - 1] >> 32) : ~0u;
    for (size_t i = 0; i < n; ++i)
      if (ordered(distance[i]) <= worst) insert(candidate(distance[i], rows[i]));
  }

  void expand(bool keep) {
    Candidate& c = scratch.pool[next];
    const Row node = node_of(c);
    c |= 1;
    if (keep) scratch.expanded.push_back(c & ~Candidate{1});
    ++scratch.work.hops;
    const Row* list = layer.list(node);
    Row fresh[kMaxBlock];
    size_t n = 0;
    for (size_t i = 0, degree = layer.degree(); i < degree; ++i) {
      const Row v = Layer::load(list + i);
      if (v >= n_nodes) {  // kNone ends the list; a node added since this search began is not for it
        if (v == kNone) break;
        continue;
      }
      if (!mark(v)) continue;
      fresh[n++] = v;
    }
    scorer.prefetch(fresh, n);
    while (next < size && scratch.pool[next] & 1) ++next;
    if (next < size) __builtin_prefetch(layer.list(node_of(scratch.pool[next])));
    score_block(fresh, n);
    while (next < size && scratch.pool[next] & 1) ++next;
  }
};

void search(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
            size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch) {
  size_t capacity = std::max<size_t>(1, effort.width);
  for (size_t i = 0; i < effort.n_levels; ++i) capacity = std::max<size_t>(capacity, effort.widths[i]);
  Walk walk{layer, scorer, prepared, n_nodes, capacity, scratch};
  scratch.expanded.clear();
  walk.begin(capacity);
  Row block[kMaxBlock];
  size_t n = 0;
  for (size_t i = 0; i < n_starts; ++i) {
    if (starts[i] < n_nodes && walk.mark(starts[i])) block[n++] = starts[i];
    if (n == kMaxBlock || (i + 1 == n_starts && n > 0)) {
      walk.score_block(block, n);
      n = 0;
    }
  }
  walk.next = 0;
  for (size_t hops = 0; walk.next < walk.size; ++hops) {
    if (effort.probe && hops == effort.probe) {
      scratch.hardness = distance_of(scratch.pool[0]);
      const size_t level = std::lower_bound(effort.bounds, effort.bounds + effort.n_levels - 1, scratch.hardness) - effort.bounds;
      walk.width = std::max<size_t>(1, effort.widths[level]);
      walk.size = std::min(walk.size, walk.width);
      if (walk.next >= walk.size) break;
    }
    walk.expand(keep_expanded);
  }
  scratch.pool.resize(walk.size);
}

Row descend(const Layer& layer, const Scorer& scorer, const void* prepared, Row start, size_t n_nodes, Work& work) {
  float best;
  scorer.score(prepared, &start, 1, __builtin_huge_valf(), &best);
  ++work.distances;
  for (Row at = start;;) {
    Row fresh[kMaxBlock];
    float distance[kMaxBlock];
    size_t n = 0;
    const Row* list = layer.list(at);
    for (size_t i = 0, degree = layer.degree(); i < degree; ++i) {
      const Row v = Layer::load(list + i);
      if (v == kNone) break;
      if (v < n_nodes) fresh[n++] = v;
    }
    scorer.score(prepared, fresh, n, best, distance);
    work.distances += n;
    ++work.hops;
    const Row before = at;
    for (size_t i = 0; i < n; ++i)
      if (distance[i] < best) best = distance[i], at = fresh[i];
    if (at == before) return at;
  }
}

}  // namespace nearly::graph
