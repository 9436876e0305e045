#include "graph/search.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>

namespace nearly::graph {
namespace {
constexpr float kFarther = 0.25f;  // that a reach grows for each doubling of the rank of the anchor: levers table
constexpr float kAnywhere = std::numeric_limits<float>::infinity();
}  // namespace

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

void Walk::begin(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
                 size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch, Row without,
                 const Among& among) {
  end();  // of a walk that an exception cut short
  kernels_ = &kernels::active();
  layer_ = &layer;
  scorer_ = &scorer;
  prepared_ = prepared;
  scratch_ = &scratch;
  effort_ = effort;
  n_nodes_ = n_nodes;
  without_ = kNone;
  among_ = {};
  keep_ = keep_expanded;
  width_ = std::max<size_t>(1, effort.width);
  for (size_t i = 0; i < effort.n_levels; ++i) width_ = std::max<size_t>(width_, effort.widths[i]);
  size_ = next_ = hops_ = level_ = anchored_ = n_best_ = n_met_ = n_fresh_ = 0;
  if (effort.counts && best_.size() < effort.anchor) best_.resize(effort.anchor);
  waiting_ = false;
  stop_ = kAnywhere;  // before the probe the widest effort holds
  reach_ = kAnywhere;
  if (effort.reaches) {
    reach_ = effort.reaches[0];
    for (size_t i = 1; i < effort.n_levels; ++i) reach_ = std::max(reach_, effort.reaches[i * effort.n_ranks]);
  }
  scratch.expanded.clear();
  const size_t words = (n_nodes + 63) / 64;
  if (scratch.seen_.size() < words) scratch.seen_.resize(words, 0);
  if (without < n_nodes) {
    meet(&without, 1);
    n_fresh_ = 0;
    without_ = without;
  }
  among_ = among;
  for (size_t i = 0; i < n_starts; i += kMaxBlock) {
    meet(starts + i, std::min(kMaxBlock, n_starts - i));
    score();
  }
  ask();
}

// Leaves no bit behind, also when a scorer throws.
void Walk::end() {
  if (!scratch_) return;
  uint64_t* seen = scratch_->seen_.data();
  const size_t words = std::min(scratch_->seen_.size(), (n_nodes_ + 63) / 64);
  if (words < 4 * n_met_)  // bytes in a row are cleared much faster
    std::memset(seen, 0, words * sizeof *seen);
  else
    for (size_t i = 0; i < n_met_; ++i) seen[scratch_->met_[i] / 64] = 0;
  if (hops_ < effort_.probe) scratch_->hardness = size_ > 0 ? distance_of(scratch_->pool[0]) : __builtin_huge_valf();
  scratch_->pool.resize(size_);
  scratch_ = nullptr;
}

// Nodes of a list that this walk has not met, to be scored.
void Walk::meet(const Row* list, size_t degree) {
  std::vector<Row>& met = scratch_->met_;
  if (met.size() < n_met_ + degree + 1) met.resize(2 * (n_met_ + degree + 1));
  const size_t n = kernels_->unseen(list, degree, n_nodes_, scratch_->seen_.data(), met.data() + n_met_);
  n_met_ += n;
  n_fresh_ += n;
  if (among_) leave_out(n);
  if (without_ != kNone) replace(list, degree);
}

// Of the last n fresh nodes those that are none of what the walk is among were met, and that is all.
void Walk::leave_out(size_t n) {
  Row* fresh = scratch_->met_.data() + n_met_ - n_fresh_;
  size_t out = 0;
  for (size_t i = n_fresh_ - n; i < n_fresh_; ++i)
    if (!among_.has(fresh[i])) std::swap(fresh[i], fresh[out++]);
  n_fresh_ -= out;
}

// A list that names the node to do without would have another one in its place: one of that node's own neighbors, as
// near to it as it is to the list's owner by rank, comes closest to what a graph built without the node delivers.
void Walk::replace(const Row* list, size_t degree) {
  size_t rank = 0;
  while (rank < degree && Layer::load(list + rank) != without_) ++rank;
  if (rank == degree) return;
  const Row* theirs = layer_->list(without_);
  size_t n = layer_->degree();
  while (n > 0 && Layer::load(theirs + n - 1) == kNone) --n;
  if (n == 0) return;
  Row instead = Layer::load(theirs + rank % n);
  for (size_t next = 1; among_ && next < n && !among_.has(instead); ++next)
    instead = Layer::load(theirs + (rank + next) % n);
  if (among_ && !among_.has(instead)) return;
  const size_t fresh = kernels_->unseen(&instead, 1, n_nodes_, scratch_->seen_.data(), scratch_->met_.data() + n_met_);
  n_met_ += fresh;
  n_fresh_ += fresh;
}

// Beyond what distance a candidate is of no use: it would neither be read nor ranked.
float Walk::bound() const {
  const Candidate* pool = scratch_->pool.data();
  float bound = kAnywhere;
  if (by_reach()) {
    const size_t stay = std::max({effort_.anchor, effort_.keep, stretched(std::min(effort_.ranked, hops_))});
    if (size_ > stay) bound = std::max(stop_, distance_of(pool[stay]));
  }
  return size_ >= held() ? std::min(bound, distance_of(pool[held() - 1])) : bound;
}

void Walk::score() {
  constexpr size_t kMost = kAtOnce * kMaxBlock;
  float distance[kMost];
  Candidate near[kMost + 1];
  for (size_t block; n_fresh_ > 0; n_fresh_ -= block) {
    block = std::min(n_fresh_, kMost);
    const Row* fresh = scratch_->met_.data() + n_met_ - n_fresh_;
    const float bound = this->bound();
    scorer_->score(prepared_, fresh, block, bound, distance);
    scratch_->work.distances += block;
    const size_t n = kernels_->within(distance, fresh, block, bound, near);
    if (n == 0) continue;
    if (effort_.counts) take(near, n);
    const size_t held = this->held(), room = std::min(held, size_ + n);
    if (scratch_->pool.size() < room) scratch_->pool.resize(std::min(held, 2 * room));
    const kernels::Merged merged = kernels_->merge(scratch_->pool.data(), size_, held, near, n);
    size_ = merged.size;
    settle();
    if (merged.first < next_) {
      next_ = merged.first;
      ask();
    }
  }
}

// After the probe the effort follows from what was seen.
void Walk::choose_effort() {
  scratch_->hardness = distance_of(scratch_->pool[0]);
  const float* end = effort_.bounds + effort_.n_levels - 1;
  level_ = static_cast<size_t>(std::lower_bound(effort_.bounds, end, scratch_->hardness) - effort_.bounds);
  width_ = std::max<size_t>(1, effort_.widths[level_]);
  size_ = std::min(size_, held());
  if (effort_.reaches) reach_ = effort_.reaches[level_ * effort_.n_ranks];
  settle();
}

// Those of new candidates that count: the nearest of these are known.
void Walk::take(const Candidate* near, size_t n) {
  Candidate counted[kAtOnce * kMaxBlock + 1];
  size_t m = 0;
  for (size_t i = 0; i < n; ++i) {
    counted[m] = near[i];
    m += effort_.counts(effort_.whose, node_of(near[i]));
  }
  if (m > 0) n_best_ = kernels_->merge(best_.data(), n_best_, effort_.anchor, counted, m).size;
}

// Where the walk stops follows the anchor: of what counts, so that a filter against its query makes it go farther.
// Distances below zero reach as far as those above.
void Walk::settle() {
  if (!by_reach()) return;
  const Candidate* pool = scratch_->pool.data();
  if (!effort_.counts) {
    if (size_ < effort_.anchor) return;
    const float anchor = distance_of(pool[effort_.anchor - 1]);
    stop_ = anchor + reach_ * std::fabs(anchor);
    return;
  }
  if (n_best_ < effort_.anchor) {
    stop_ = kAnywhere;
    anchored_ = size_;
    return;
  }
  const Candidate last = best_[effort_.anchor - 1];
  anchored_ = static_cast<size_t>(std::upper_bound(pool, pool + size_, last | 1) - pool);
  const float anchor = distance_of(last);
  stop_ = anchor + (effort_.n_ranks > 1 ? reach_at(anchored_) : reach_) * std::fabs(anchor);
}

// As far as a search for so many neighbors reaches; before the probe as far as one for the fewest. See `Effort`.
float Walk::reach_at(size_t rank) const {
  if (hops_ < effort_.probe) return reach_;
  const size_t expected = stretched(effort_.anchor);
  if (rank <= expected) return reach_for(static_cast<float>(rank));
  const float times = static_cast<float>(rank) / static_cast<float>(expected);
  return reach_for(static_cast<float>(expected) / times) * (1 + kFarther * std::log2(times));
}

float Walk::reach_for(float rank) const {
  const uint32_t* ranks = effort_.ranks;
  const size_t n = effort_.n_ranks;
  size_t i = 0;
  while (i < n && static_cast<float>(ranks[i]) < rank) ++i;
  if (i == 0) return reach_;
  const float* reaches = effort_.reaches + level_ * n;
  if (i == n) return reaches[n - 1];
  const auto low = static_cast<float>(ranks[i - 1]), high = static_cast<float>(ranks[i]);
  return reaches[i - 1] + std::log(rank / low) / std::log(high / low) * (reaches[i] - reaches[i - 1]);
}

// How many lists are read at once: one on the way in, where the best candidate is soon forgotten, more among the nearest,
// all of which are read in the end. Their cache misses overlap, and their candidates are merged in one go.
size_t Walk::at_once() const { return std::min(kAtOnce, 1 + hops_ / kAlone); }

// Asks for the lists that are read next.
void Walk::ask() const {
  const Candidate* pool = scratch_->pool.data();
  size_t left = at_once();
  for (size_t i = next_, n = std::min(size_, width_); i < n && left > 0; ++i)
    if (!(pool[i] & 1)) {
      layer_->prefetch(node_of(pool[i]));
      --left;
    }
}

// Collects the unseen neighbors of the nearest open candidates and asks for their codes.
void Walk::read_lists() {
  Candidate* pool = scratch_->pool.data();
  for (size_t left = at_once(); left > 0 && open(); --left) {
    Candidate& c = pool[next_];
    c |= 1;
    if (keep_) scratch_->expanded.push_back(c & ~Candidate{1});
    ++scratch_->work.hops;
    ++hops_;
    meet(layer_->list(node_of(c)), layer_->degree());
    while (next_ < size_ && pool[next_] & 1) ++next_;
    if (hops_ == effort_.probe) break;
  }
  scorer_->prefetch(scratch_->met_.data() + n_met_ - n_fresh_, n_fresh_);
  ask();
}

bool Walk::turn() {
  if (waiting_) {
    waiting_ = false;
    score();
    while (next_ < size_ && scratch_->pool[next_] & 1) ++next_;
    if (effort_.probe && hops_ == effort_.probe) choose_effort();
    return open();
  }
  if (!open()) return false;
  read_lists();
  waiting_ = true;
  return true;
}

void search(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
            size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch, const Among& among) {
  Walk walk;
  walk.begin(layer, scorer, prepared, starts, n_starts, n_nodes, effort, keep_expanded, scratch, kNone, among);
  while (walk.turn()) {
  }
}

Row descend(const Layer& layer, const Scorer& scorer, const void* prepared, Row start, size_t n_nodes, Work& work,
            Row without) {
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
      if (v < n_nodes && v != without) fresh[n++] = v;
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
