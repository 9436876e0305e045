#include "graph/search.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>

namespace nearly::graph {

Scratch::~Scratch() { std::free(prepared_); }

Scratch& Scratch::of_this_thread(size_t which) {
  thread_local std::deque<Scratch> all;
  while (all.size() <= which) all.emplace_back();
  return all[which];
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

namespace {

constexpr size_t kClearAtOnce = 4096;  // words of the seen set that are cheaper to clear than to remember

}  // namespace

void Walk::begin(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
                 size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch) {
  end();  // of a walk that an exception cut short
  layer_ = &layer;
  scorer_ = &scorer;
  prepared_ = prepared;
  scratch_ = &scratch;
  effort_ = effort;
  n_nodes_ = n_nodes;
  keep_ = keep_expanded;
  width_ = std::max<size_t>(1, effort.width);
  for (size_t i = 0; i < effort.n_levels; ++i) width_ = std::max<size_t>(width_, effort.widths[i]);
  size_ = next_ = hops_ = n_fresh_ = 0;
  waiting_ = false;
  scratch.expanded.clear();
  const size_t words = (n_nodes + 63) / 64;
  sparse_ = words > kClearAtOnce;
  if (scratch.seen_.size() < words) scratch.seen_.resize(words, 0);
  if (scratch.pool.size() < width_ + 1) scratch.pool.resize(width_ + 1);
  size_t n = 0;
  for (size_t i = 0; i < n_starts; ++i) {
    if (starts[i] < n_nodes && mark(starts[i])) fresh_[n++] = starts[i];
    if (n == kMaxBlock || (i + 1 == n_starts && n > 0)) {
      score(fresh_, n);
      n = 0;
    }
  }
  next_ = 0;
  if (size_ > 0) layer.prefetch(node_of(scratch.pool[0]));
}

// Leaves no bit behind, also when a scorer throws.
void Walk::end() {
  if (!scratch_) return;
  if (sparse_) {
    for (const uint32_t word : scratch_->dirty_) scratch_->seen_[word] = 0;
    scratch_->dirty_.clear();
  } else {
    std::memset(scratch_->seen_.data(), 0, std::min(scratch_->seen_.size(), (n_nodes_ + 63) / 64) * 8);
  }
  if (hops_ < effort_.probe) scratch_->hardness = size_ > 0 ? distance_of(scratch_->pool[0]) : __builtin_huge_valf();
  scratch_->pool.resize(size_);
  scratch_ = nullptr;
}

// True the first time.
inline bool Walk::mark(Row node) {
  uint64_t& word = scratch_->seen_[node / 64];
  const uint64_t bit = uint64_t{1} << (node % 64), before = word;
  if (sparse_ && before == 0) scratch_->dirty_.push_back(node / 64);
  word = before | bit;
  return !(before & bit);
}

inline void Walk::insert(Candidate c) {
  Candidate* pool = scratch_->pool.data();
  if (size_ == width_) {
    if (c >= pool[size_ - 1]) return;
    --size_;
  }
  // From the back in a small pool, where shifting finds the place on its way; by halves in a large one.
  size_t at = size_;
  if (size_ <= 32) {
    for (; at > 0 && pool[at - 1] > c; --at) pool[at] = pool[at - 1];
  } else {
    at = static_cast<size_t>(std::lower_bound(pool, pool + size_, c) - pool);
    std::memmove(pool + at + 1, pool + at, (size_ - at) * sizeof(Candidate));
  }
  pool[at] = c;
  ++size_;
  if (at < next_) {
    next_ = at;
    layer_->prefetch(node_of(c));
  }
}

void Walk::score(const Row* rows, size_t n) {
  float distance[kMaxBlock];
  float bound = size_ == width_ ? distance_of(scratch_->pool[size_ - 1]) : __builtin_huge_valf();
  scorer_->score(prepared_, rows, n, bound, distance);
  scratch_->work.distances += n;
  for (size_t i = 0; i < n; ++i) {
    if (distance[i] > bound) continue;
    insert(candidate(distance[i], rows[i]));
    if (size_ == width_) bound = distance_of(scratch_->pool[size_ - 1]);
  }
}

// After the probe the width follows from what was seen.
void Walk::choose_width() {
  scratch_->hardness = distance_of(scratch_->pool[0]);
  const float* end = effort_.bounds + effort_.n_levels - 1;
  const auto level = static_cast<size_t>(std::lower_bound(effort_.bounds, end, scratch_->hardness) - effort_.bounds);
  width_ = std::max<size_t>(1, effort_.widths[level]);
  size_ = std::min(size_, width_);
}

// Collects the unseen neighbors of the nearest open candidate and asks for their codes.
void Walk::read_list() {
  Candidate& c = scratch_->pool[next_];
  c |= 1;
  if (keep_) scratch_->expanded.push_back(c & ~Candidate{1});
  ++scratch_->work.hops;
  ++hops_;
  const Row* list = layer_->list(node_of(c));
  n_fresh_ = 0;
  for (size_t i = 0, degree = layer_->degree(); i < degree; ++i) {
    const Row v = Layer::load(list + i);
    if (v >= n_nodes_) {  // kNone ends the list; a node added since this walk began is not for it
      if (v == kNone) break;
      continue;
    }
    fresh_[n_fresh_] = v;  // kept or overwritten by the next: no branch to guess
    n_fresh_ += mark(v);
  }
  scorer_->prefetch(fresh_, n_fresh_);
  while (next_ < size_ && scratch_->pool[next_] & 1) ++next_;
  if (next_ < size_) layer_->prefetch(node_of(scratch_->pool[next_]));
}

bool Walk::turn() {
  if (waiting_) {
    waiting_ = false;
    score(fresh_, n_fresh_);
    while (next_ < size_ && scratch_->pool[next_] & 1) ++next_;
    if (effort_.probe && hops_ == effort_.probe) choose_width();
    return next_ < size_;
  }
  if (next_ >= size_) return false;
  read_list();
  waiting_ = true;
  return true;
}

void search(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
            size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch) {
  Walk walk;
  walk.begin(layer, scorer, prepared, starts, n_starts, n_nodes, effort, keep_expanded, scratch);
  while (walk.turn()) {
  }
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
