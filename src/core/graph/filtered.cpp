#include "graph/filtered.hpp"

#include <algorithm>
#include <cmath>

namespace nearly::graph {
namespace {

// Of neighbors that do not pass, so many are hopped over that about 16 are found which do, at 20 new ones each. Levers
// table of benchmarks/README.md.
constexpr float kWanted = 0.8f;
constexpr size_t kLeastOver = 8, kMostOver = 32;
constexpr float kEnough = 8;  // neighbors that pass in a wide list, under which two steps are made anew
constexpr size_t kWideStarts = 16;  // nearest met nodes whose wide lists are read at first
constexpr size_t kWide = 128;      // neighbors of a wide list that is read as fast as another
constexpr float kFresh = 0.6f;       // of a list's neighbors are met for the first time, where all are walked: sifting.py
constexpr float kLastShare = 0.02f;  // the last that hops were measured at (needs.py): under it they take more in proportion
constexpr float kWorth = 0.85f;  // of the most work, that the rest of a walk may be foretold to take
constexpr float kPrior = 32;  // nodes that are as good as met: as many of them pass as of all
constexpr float kSigmas = 3;  // by which fewer than usual must pass among those met before a filter is against a query

}  // namespace

void FilteredWalk::begin(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts,
                         size_t n_starts, size_t n_nodes, const Effort& effort, const Sieve& sieve, Scratch& scratch,
                         Row without) {
  sieve_ = sieve;
  most_work_ = sieve.most_work + sieve.most_work / 2;
  spent_before_ = scratch.work.distances + kList * scratch.work.hops;
  over_.clear();
  stage_ = Stage::kWalk;
  looked_ = gave_up_ = false;
  Effort counted = effort;
  counted.whose = this;
  counted.counts = [](const void* whose, Row node) { return static_cast<const FilteredWalk*>(whose)->sieve_.passes(node); };
  Walk::begin(layer, scorer, prepared, starts, n_starts, n_nodes, counted, false, scratch, without);
}

// After the probe: what passes around the query says how to go on.
void FilteredWalk::look_around() {
  looked_ = true;
  const Candidate* pool = scratch_->pool.data();
  const size_t n = std::min(size_, kSample);
  size_t near = 0, all = 0;
  for (size_t i = 0; i < size_; ++i) {
    all += sieve_.passes(node_of(pool[i]));
    if (i + 1 == n) near = all;
  }
  const float expected = sieve_.share * static_cast<float>(size_), met = static_cast<float>(all);
  const bool against = expected - met > kSigmas * std::sqrt(expected);
  const float share = (static_cast<float>(near) + kPrior * sieve_.share) / (static_cast<float>(n) + kPrior);
  const auto anchor = static_cast<float>(effort_.anchor);
  float foretold = 0;
  if (against) {
    most_work_ = sieve_.most_work / 4;
    foretold = walked(met >= anchor ? static_cast<float>(anchored_) : anchor * static_cast<float>(size_) / std::max(met, 0.5f));
  } else if (share < sieve_.few) {
    const size_t at = band(share);
    const float fewer = at + 1 == sieve_.n_edges ? std::max(1.0f, kLastShare / share) : 1.0f;
    foretold = sieve_.works[level_ * sieve_.n_edges + at] * fewer;
  } else {
    foretold = walked(anchor / share);
  }
  const float rest = foretold - static_cast<float>(spent());
  gave_up_ = rest > kWorth * static_cast<float>(most_work_) || (against && Walk::cut_short());
  if (!gave_up_ && !against && share < sieve_.few) begin_hops(share);
}

// The work of a walk among all until it has so many neighbors.
float FilteredWalk::walked(float rank) const {
  const uint32_t* ranks = effort_.ranks;
  size_t i = 1;
  while (i + 1 < effort_.n_ranks && rank > static_cast<float>(ranks[i])) ++i;
  const float* known = sieve_.lists + level_ * effort_.n_ranks;
  float lists = known[0] * std::max(1.0f, rank / static_cast<float>(ranks[0]));
  if (effort_.n_ranks > 1) {
    const auto low = static_cast<float>(ranks[i - 1]), high = static_cast<float>(ranks[i]);
    const float part = std::log(std::max(rank, low) / low) / std::log(high / low);
    lists = rank > high ? known[i] * rank / high : known[i - 1] + part * (known[i] - known[i - 1]);
  }
  return lists * (kFresh * static_cast<float>(layer_->degree()) + static_cast<float>(kList));
}

size_t FilteredWalk::band(float share) const {
  size_t at = 0;
  while (at + 1 < sieve_.n_edges && share < sieve_.edges[at]) ++at;
  return at;
}

// From here on the pool holds only what passes.
void FilteredWalk::begin_hops(float share) {
  ++scratch_->work.hopped;
  if (sieve_.wide && share * static_cast<float>(sieve_.wide->degree()) < kEnough) sieve_.wide = nullptr;
  most_over_ = std::clamp(static_cast<size_t>(std::ceil(kWanted / share)), kLeastOver, kMostOver);
  Candidate* pool = scratch_->pool.data();
  size_t kept = 0;
  for (size_t i = 0; i < size_; ++i) {
    const Row node = node_of(pool[i]);
    if (sieve_.passes(node)) {
      pool[kept++] = pool[i];
    } else if (i < (sieve_.wide ? kWideStarts : kSample) && !(pool[i] & 1)) {
      over_.push_back(node);
      (sieve_.wide ? sieve_.wide : layer_)->prefetch(node);
    }
  }
  size_ = kept;
  next_ = 0;
  while (next_ < size_ && pool[next_] & 1) ++next_;
  effort_.counts = nullptr;
  effort_.stretch = 1;
  effort_.n_ranks = 1;
  reach_ = sieve_.reaches[level_ * sieve_.n_edges + band(share)];
  stop_ = std::numeric_limits<float>::infinity();
  settle();
  for (size_t i = 0; i < sieve_.n_seeds; i += kMaxBlock) meet(sieve_.seeds + i, std::min(kMaxBlock, sieve_.n_seeds - i));
  stage_ = Stage::kHop;
}

// The lists of the nearest open candidates: what passes is to be scored, what does not is to be hopped over.
void FilteredWalk::read_lists() {
  Candidate* pool = scratch_->pool.data();
  for (size_t left = at_once(); left > 0 && open(); --left) {
    Candidate& c = pool[next_];
    c |= 1;
    ++hops_;
    while (next_ < size_ && pool[next_] & 1) ++next_;
    if (sieve_.wide) {
      over_.push_back(node_of(c));
      sieve_.wide->prefetch(node_of(c));
    } else {
      ++scratch_->work.hops;
      const size_t before = n_fresh_;
      meet(layer_->list(node_of(c)), layer_->degree());
      pass_by(before);
    }
  }
}

// Of the last nodes met, those from `before` on: some that do not pass are to be hopped over, none is to be scored.
void FilteredWalk::pass_by(size_t before) {
  const size_t n = n_fresh_ - before;
  Row* fresh = scratch_->met_.data() + n_met_ - n;
  size_t n_over = 0;
  for (size_t i = 0; i < n; ++i) {
    if (sieve_.passes(fresh[i])) continue;
    if (n_over < most_over_) {
      over_.push_back(fresh[i]);
      layer_->prefetch(fresh[i]);
    }
    std::swap(fresh[i], fresh[n_over++]);
  }
  // They stay among the met, before all that are to be scored.
  std::rotate(fresh - before, fresh, fresh + n_over);
  n_fresh_ -= n_over;
}

// The lists of nodes that do not pass, or wide ones, for those in them that do.
void FilteredWalk::hop() {
  std::vector<Row>& met = scratch_->met_;
  const Layer& layer = sieve_.wide ? *sieve_.wide : *layer_;
  const size_t degree = layer.degree(), most = n_met_ + over_.size() * degree + 1;
  if (met.size() < most) met.resize(2 * most);
  const size_t n_bits = std::min(n_nodes_, sieve_.n_bits);
  for (const Row node : over_) {
    const size_t n =
        kernels_->unseen_passing(layer.list(node), degree, n_bits, scratch_->seen_.data(), sieve_.bits, met.data() + n_met_);
    n_met_ += n;
    n_fresh_ += n;
  }
  scratch_->work.hops += over_.size() * std::max<size_t>(1, degree / kWide);
  over_.clear();
}

bool FilteredWalk::gives_up() {
  // Once all lists up to the anchor are read, little that is nearer will be found: what would cut it short in the end does now.
  const bool settled = looked_ && stage_ == Stage::kWalk && next_ > anchored_;
  gave_up_ = gave_up_ || spent() > most_work_ || (settled && Walk::cut_short());
  scratch_->work.gave_up += gave_up_;
  return gave_up_;
}

bool FilteredWalk::turn() {
  switch (stage_) {
    case Stage::kWalk: {
      const bool more = Walk::turn();
      if (!waiting_ && !looked_ && hops_ >= effort_.probe) {
        look_around();
        if (stage_ == Stage::kHop) return true;
      }
      return more && !gives_up();
    }
    case Stage::kRead:
      if (!open() || gives_up()) return false;
      read_lists();
      stage_ = Stage::kHop;
      return true;
    case Stage::kHop:
      hop();
      scorer_->prefetch(scratch_->met_.data() + n_met_ - n_fresh_, n_fresh_);
      stage_ = Stage::kScore;
      return true;
    case Stage::kScore:
      score();
      while (next_ < size_ && scratch_->pool[next_] & 1) ++next_;
      ask();
      stage_ = Stage::kRead;
      return true;
  }
  return false;
}

}  // namespace nearly::graph
