// Best-first search over one layer. Knows nodes, lists and a scorer; not what a vector is.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/scorer.hpp"
#include "graph/labels.hpp"
#include "graph/layer.hpp"
#include "kernels/table.hpp"

namespace nearly::graph {

// A candidate in 8 bytes, as kernels make it: the distance, its bits made a signed number of the same order, then the
// node, then one bit that says that its list has been read. Comparing words compares (distance, node).
using Candidate = int64_t;

inline Candidate candidate(float d, Row node) {
  int32_t bits;
  __builtin_memcpy(&bits, &d, 4);
  return static_cast<Candidate>(bits ^ ((bits >> 31) & 0x7fffffff)) << 32 | static_cast<Candidate>(node) << 1;
}
inline float distance_of(Candidate c) {
  const auto key = static_cast<int32_t>(c >> 32);
  const int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
  float d;
  __builtin_memcpy(&d, &bits, 4);
  return d;
}
inline Row node_of(Candidate c) { return static_cast<Row>(c) >> 1; }

constexpr size_t kMaxNodes = size_t{1} << 31;

// When to stop: when every candidate in a pool of some width was read, or when the next one is farther than the
// `anchor`-th nearest by more than a share of its distance, the reach (distance adaptive beam search: Al-Jazzazi et al.,
// NeurIPS 2025, https://arxiv.org/abs/2505.15636; there of plain distances, here of those that walks compare). Both may be
// chosen by what the search sees in its first hops: after `probe` lists the best distance so far is looked up in `bounds`
// (ascending).
struct Effort {
  size_t width = 64;
  size_t probe = 0;              // 0: width as given, and no reach
  const float* bounds = nullptr;  // n_levels - 1
  const uint32_t* widths = nullptr;  // n_levels
  size_t n_levels = 0;
  size_t keep = 0;  // candidates held at least: those beyond the width are ranked, but their lists are not read
  const float* reaches = nullptr;  // n_levels x n_ranks, or none
  size_t anchor = 1;
  size_t ranked = 1;  // candidates that stay in the pool though they are out of reach, as far as lists were read
  // Where some nodes are dead or do not pass a filter: whether one counts for the anchor, and how many there are for each
  // that does. If the anchor is the j-th nearest of all, it reaches as far as is right for j neighbors: `reaches` are known
  // for these ranks, ascending, between them by the logarithm, beyond them as for the last. But where j is larger than the
  // stretch lets expect, what counts begins beyond the nearest: it is among the last of the j, which are missed the most,
  // and the reach is that of as many times fewer neighbors, and more.
  bool (*counts)(const void* whose, Row node) = nullptr;
  const void* whose = nullptr;
  float stretch = 1;
  const uint32_t* ranks = nullptr;
  size_t n_ranks = 1;
};

struct Work {
  uint64_t distances = 0, hops = 0, ranked = 0;
  uint64_t hopped = 0, gave_up = 0;  // walks under a filter: see filtered.hpp
};

// The memory of one search: grows to the largest graph, clean between searches, kept for the next one.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch();
  // A thread's own; several, because a thread may have several searches under way.
  static Scratch& of_this_thread(size_t which = 0);

  void* prepared(size_t bytes);
  std::vector<Candidate> pool;      // sorted, ascending
  std::vector<Candidate> expanded;  // candidates whose list was read, in order; filled when asked for
  float hardness = 0;               // the best distance after the probe, or at the end of a walk that it outlasted
  Work work;

 private:
  friend class Walk;
  friend class FilteredWalk;
  std::vector<uint64_t> seen_;  // a bit a node, all zero between searches
  std::vector<Row> met_;        // whose bits are set
  void* prepared_ = nullptr;
  size_t prepared_bytes_ = 0;
};

constexpr size_t kMaxBlock = 512;  // the largest degree
constexpr size_t kAtOnce = 4;      // lists read before their neighbors are scored
constexpr size_t kAlone = 8;       // hops after which one more is
constexpr size_t kFirst = 32, kFor = 2;  // candidates held at first, and for each list read, where a reach ends a walk
constexpr size_t kAgainst = 4;  // times as many nearer nodes that do not count as there should be: a filter against its query
constexpr size_t kRanked = 4;      // lists read for each candidate that is worth ranking: a quarter of the pool

// One search for the nodes nearest to a prepared query, in turns: a turn asks for memory and the next one uses it, so a
// thread that takes turns between walks hides one's cache misses behind another's arithmetic. The answer, scratch.pool,
// does not depend on who walks beside. The node `without` is passed over as if it were not in the graph, and so are all but
// those that the walk is `among`, if it is among some only.
class Walk {
 public:
  Walk() = default;
  ~Walk() { end(); }
  Walk(const Walk&) = delete;

  void begin(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
             size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch, Row without = kNone,
             const Among& among = {});
  // False when the walk is over.
  bool turn();
  void end();
  // Whether the pool's width ended a walk that a reach was to end, or most of what is near does not count: among what is
  // behind it, a reach was not measured.
  bool cut_short() const {
    return by_reach() && (next_ >= width_ || (effort_.counts && anchored_ > kAgainst * stretched(effort_.anchor)));
  }
  // How many candidates to rank, at least `least`, where `depth` are enough for codes to be told apart: after a walk that a
  // reach ended early no more than it read lists, after a long one more.
  size_t worth_ranking(size_t least, size_t depth) const {
    if (!by_reach()) return depth;
    return std::max({least, std::min(depth, std::max(hops_, effort_.keep)), hops_ / kRanked});
  }

 protected:
  void meet(const Row* list, size_t degree);
  void take(const Candidate* near, size_t n);
  void replace(const Row* list, size_t degree);
  void leave_out(size_t n);
  void score();
  size_t at_once() const;
  void ask() const;
  void read_lists();
  bool by_reach() const { return reach_ < std::numeric_limits<float>::infinity(); }
  size_t stretched(size_t n) const { return static_cast<size_t>(effort_.stretch * static_cast<float>(n)); }
  void choose_effort();
  void settle();
  float reach_at(size_t rank) const;
  float reach_for(float rank) const;
  float bound() const;
  // How many candidates the pool holds: all that may be read in the end, where all count.
  size_t held() const {
    const size_t width = by_reach() && !effort_.counts ? std::min(width_, kFirst + kFor * hops_) : width_;
    return std::max(width, effort_.keep);
  }
  bool open() const { return next_ < size_ && next_ < width_ && distance_of(scratch_->pool[next_]) <= stop_; }

  const kernels::Table* kernels_ = nullptr;
  const Layer* layer_ = nullptr;
  const Scorer* scorer_ = nullptr;
  const void* prepared_ = nullptr;
  Scratch* scratch_ = nullptr;
  Effort effort_;
  size_t n_nodes_ = 0, width_ = 0;
  size_t size_ = 0, next_ = 0;  // of the pool; the first candidate not expanded
  size_t anchored_ = 0;         // where in the pool the anchor is
  std::vector<Candidate> best_;  // where not all count: the nearest that do, as far as the anchor
  size_t n_best_ = 0;
  size_t n_met_ = 0, n_fresh_ = 0;  // nodes met; the last ones of them are not scored yet
  float reach_ = 0, stop_ = 0;      // how far candidates are read, as a share and as a distance
  size_t hops_ = 0, level_ = 0;
  Row without_ = kNone;
  Among among_;
  bool keep_ = false, waiting_ = false;
};

// A whole walk at once.
void search(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
            size_t n_nodes, const Effort& effort, bool keep_expanded, Scratch& scratch, const Among& among = {});

// The nearest node that a walk always downhill reaches, not by way of `without`.
Row descend(const Layer& layer, const Scorer& scorer, const void* prepared, Row start, size_t n_nodes, Work& work,
            Row without = kNone);

}  // namespace nearly::graph
