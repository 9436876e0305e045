// Best-first search for the nearest among some of the nodes. Two ways past the others, chosen for each query by what it
// sees around itself: they are walked like all, or each is replaced by those of its neighbors that may be answered
// (ACORN-1: Patel et al., SIGMOD 2024, https://arxiv.org/abs/2403.04871, section 5.2).
#pragma once
#include "graph/search.hpp"

namespace nearly::graph {

// What may be answered, and how a walk looks for it.
//
// Walking all: `Effort` says how far beyond the anchor, which is of what passes. It holds whatever share passes and wherever,
// so this is the way where the filter goes against the query, that is where much fewer pass around it than elsewhere: what
// passes there may lie on all sides at about one distance, which a walk among that alone does not get around.
struct Sieve {
  const uint64_t* bits = nullptr;  // a bit a node; null: no sieve
  size_t n_bits = 0;               // nodes beyond them do not pass
  const Layer* wide = nullptr;     // lists that take the place of hops where enough in them passes, or null: see widen.hpp
  const Row* seeds = nullptr;      // n_seeds nodes that pass, for a walk that hops
  size_t n_seeds = 0;
  float share = 1;  // of all nodes that pass
  const float* lists = nullptr;  // levels x ranks of `Effort`: how many a walk among all reads until it has so many neighbors
  float few = 0;    // share that passes, of the nearest met, under which others are hopped over
  const float* edges = nullptr;    // n_edges, descending: shares down to which the reaches hold, the last for all below
  const float* reaches = nullptr;  // levels of `Effort` x n_edges: how far beyond the anchor, of what it holds, one hops
  const float* works = nullptr;    // levels x n_edges: what walks that hop take
  size_t n_edges = 0;
  // A walk gives up beyond half more work, and where it is foretold to at once: what is foretold is known from queries that
  // were made harder, and those that give up have spent the probe. Against a filter, of which little can be foretold, the most
  // is a fourth. A unit is a comparison; reading a list takes kList.
  size_t most_work = size_t{1} << 31;

  bool passes(Row node) const { return node < n_bits && (bits[node / 64] >> (node % 64) & 1); }
};

constexpr size_t kList = 3;     // a list that is read costs as much as so many comparisons: tuning/costs.py
constexpr size_t kSample = 96;  // nearest met nodes by which a walk judges what passes around its query

class FilteredWalk : public Walk {
 public:
  void begin(const Layer& layer, const Scorer& scorer, const void* prepared, const Row* starts, size_t n_starts,
             size_t n_nodes, const Effort& effort, const Sieve& sieve, Scratch& scratch, Row without = kNone);
  // False when the walk is over: if it gave up or was cut short, what it found is not to be answered.
  bool turn();
  bool cut_short() const { return gave_up_ || Walk::cut_short(); }

 private:
  enum class Stage { kWalk, kRead, kHop, kScore };

  uint64_t done() const { return scratch_->work.distances + kList * scratch_->work.hops; }
  uint64_t spent() const { return done() - spent_before_; }
  float walked(float rank) const;
  size_t band(float share) const;
  bool gives_up();
  void look_around();
  void begin_hops(float share);
  void read_lists();
  void pass_by(size_t before);
  void hop();

  Sieve sieve_;
  size_t most_over_ = 0, most_work_ = 0;
  uint64_t spent_before_ = 0;  // by walks before this one
  std::vector<Row> over_;      // nodes that do not pass, whose lists are read next
  Stage stage_ = Stage::kWalk;
  bool looked_ = false, gave_up_ = false;
};

}  // namespace nearly::graph
