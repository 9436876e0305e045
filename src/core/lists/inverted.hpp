// Inverted lists: a vector is in the list of the center that it is nearest to, and a search looks at the lists whose centers
// are near to its query (Jégou et al., PAMI 2011, section IV).
//
// A list is chunks of slots that follow one another, so that codes are read as they lie in memory. Slots never move: a list
// grows into the room of its last chunk, then by another chunk. The first chunks are those of the lists, in order.
#pragma once
#include <limits>
#include <memory>
#include <vector>

#include "lists/scan.hpp"

namespace nearly::lists {

struct Chunk {
  uint32_t first;     // slot
  uint32_t count;     // slots in use; written last
  uint32_t capacity;
  uint32_t next;      // chunk, or kNone
};

// How many lists a query looks at: those whose centers are farther than the nearest one by at most `reach`, in the unit of
// distances (under inner product, of those of a query of length 1), and at most `width` of them. Where they hold fewer than
// k that pass, further lists are read.
struct Effort {
  size_t width;
  float reach;
  size_t depth;  // nearest by codes that are compared by their vectors
  bool all_held;  // whether rows hang on all nodes of the lists; those that lose theirs meanwhile are passed over late
  // Under a filter: what passes in each list (as `passing` counts it), or null. Lists in which nothing does are as if they
  // were not there; a query around which much less passes than elsewhere gives up: its count is 0.
  const uint32_t* holds = nullptr;
  // Lists are read, too, whose centers are farther than the k-th nearest found so far by at most this, which may be
  // negative: how near what passes is, a filter decides, and not how near lists are.
  float beyond = -std::numeric_limits<float>::infinity();
  // Vectors are compared that are farther by their codes than the k-th nearest found by at most this, instead of `depth`;
  // infinity: they are not. A query of which more than `most` are left gives up: its count is 0.
  float spread = std::numeric_limits<float>::infinity();
  size_t most = ~size_t{0};
  // Lists near to each query that something else found, n_near a query: nearest first, kNone where there are fewer, and how
  // far their centers are as `centers` compares them. A query that they do not suffice for compares all centers.
  const uint32_t* near = nullptr;
  const float* near_distances = nullptr;
  size_t n_near = 0;
};

struct Work {
  uint64_t distances, lists, ranked;
};

class Inverted {
 public:
  // Slot s holds members[s], a node, and slot s of `blocks`, or else row s of `codes`; where codes are the store itself, its
  // row is the node. Lists are chosen by `centers`; null: by what `blocks` knows of them. With `copies` a node may be in two
  // lists.
  Inverted(std::shared_ptr<Table> chunks, std::shared_ptr<Table> members, size_t n_lists, std::shared_ptr<Scorer> centers,
           std::shared_ptr<ListScorer> blocks, std::shared_ptr<Scorer> codes, std::shared_ptr<Scorer> store,
           std::shared_ptr<Rows> rows, bool copies = false)
      : chunks_(std::move(chunks)), members_(std::move(members)), n_lists_(n_lists), centers_(std::move(centers)),
        blocks_(std::move(blocks)), codes_(std::move(codes)), store_(std::move(store)), rows_(std::move(rows)), copies_(copies) {}

  // A query is one reader; throws Retired.
  Work search(const Request& request, const Effort& effort, const Poll& poll) const;
  // out: n * n_lists; how much farther than the nearest center each one is, in the unit of `reach`. nearest: n; how far
  // that one is.
  void gaps(const Request& request, float* out, float* nearest, const Poll& poll) const;
  // out: n * n_each; distances by code of n_each slots a query, which are in these lists, in the unit of `reach`.
  void estimates(const Request& request, const uint32_t* slots, const uint32_t* lists, size_t n_each, float* out,
                 const Poll& poll) const;
  // out: n_lists; how many nodes of each list have a row that passes. One reader; throws Retired.
  void passing(const Filter& filter, uint32_t* out, const Poll& poll) const;

  // The first `count` slots of a chunk may be read: their members and codes are there.
  void extend(size_t chunk, uint32_t count) { __atomic_store_n(&at(chunk)->count, count, __ATOMIC_RELEASE); }
  // A chunk that is filled in follows another one.
  void chain(size_t chunk, uint32_t next) { __atomic_store_n(&at(chunk)->next, next, __ATOMIC_RELEASE); }

  // How many slots there are codes for, or a place; chunks begin at multiples of `unit`.
  size_t n_slots() const { return blocks_ ? blocks_->n_slots() : codes_ != store_ ? codes_->n_rows() : members_->rows(); }
  size_t unit() const { return blocks_ ? ListScorer::kUnit : 1; }
  size_t n_lists() const { return n_lists_; }
  size_t n_copies() const { return copies_ ? 2 : 1; }  // of a node, at most
  const Table& chunks() const { return *chunks_; }
  const Table& members() const { return *members_; }
  const Scorer& store() const { return *store_; }

  void retire() { validity_.retire(*rows_->readers()); }
  void wait_for_readers(const Poll& poll) const { rows_->readers()->wait(poll); }

 private:
  class Answer;
  size_t prepared_centers() const { return centers_ ? centers_->prepared_bytes() : 0; }
  void from_centers(const void* centers, const void* blocks, float* out) const;
  Chunk* at(size_t chunk) const { return chunks_->as<Chunk>(chunk); }

  std::shared_ptr<Table> chunks_, members_;
  size_t n_lists_;
  std::shared_ptr<Scorer> centers_;
  std::shared_ptr<ListScorer> blocks_;
  std::shared_ptr<Scorer> codes_, store_;
  std::shared_ptr<Rows> rows_;
  bool copies_;
  Validity validity_;
};

}  // namespace nearly::lists
