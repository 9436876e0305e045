#include "lists/inverted.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "kernels/table.hpp"
#include "lists/best.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kBlock = 256;  // slots scored at a time
constexpr size_t kStrip = 32;   // slots whose nodes are asked for while those before are scored
constexpr size_t kGrain = 8;    // queries that a thread takes at a time
constexpr size_t kAhead = 32;   // rows of the next list that are asked for; the hardware follows
constexpr size_t kAround = 8;   // lists around a query by which a filter is seen to be against it, at least:
constexpr size_t kAgainst = 4;  // they hold so many times less that passes than all do on average
constexpr size_t kNext = 4;     // lists that are read at least before it is looked whether more may hold what is nearer

// What distances from centers are divided by: products grow with the query, the order of lists does not.
float length(const Request& r, size_t q) {
  if (r.metric != Metric::kDot) return 1.0f;
  const auto* query = reinterpret_cast<const float*>(r.queries + q * r.query_bytes);
  double sum = 0;
  for (size_t j = 0; j < r.query_bytes / 4; ++j) sum += static_cast<double>(query[j]) * query[j];
  return sum > 0 ? static_cast<float>(std::sqrt(sum)) : 1.0f;
}

bool squared(const Request& r) { return r.metric == Metric::kL2 || r.metric == Metric::kCosine; }

// A distance from a center in the unit of `reach`, and what is the farthest that is within reach of the nearest. Under cosine
// centers are compared by squared distance, whatever the length of what codes compare; what is no number is far away.
float in_reach(const Request& r, size_t q, float distance) {
  if (std::isnan(distance)) return std::numeric_limits<float>::infinity();
  return squared(r) ? std::sqrt(std::max(distance, 0.0f)) : distance / length(r, q);
}
float farthest(const Request& r, size_t q, float nearest, float reach) {
  const float most = in_reach(r, q, nearest) + reach;
  return std::max(nearest, squared(r) ? most * most * 1.000001f : most * length(r, q));  // gaps equal to the reach are within
}

// The farthest center that is beyond a vector by at most so much; the vector's distance is as the store has it.
float farthest_beyond(const Request& r, size_t q, float distance, float beyond) {
  const float from = r.metric == Metric::kCosine ? 2.0f * distance : distance;  // of unit vectors: |q - x|^2 = 2 (1 - <q, x>)
  const float most = in_reach(r, q, from) + beyond;
  if (squared(r)) return most < 0 ? -1.0f : most * most * 1.000001f;
  return most * length(r, q);
}

// The least of n numbers; NaN is none.
float least(const float* x, size_t n) {
  constexpr size_t kLanes = 8;
  float low[kLanes];
  std::fill_n(low, kLanes, std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (size_t j = 0; j < kLanes; ++j) low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
  for (; i < n; ++i) low[0] = x[i] < low[0] ? x[i] : low[0];
  return *std::min_element(low, low + kLanes);
}

// What is near: a distance's bits in the order of floats, then twice the row (kernels::Table::within).
int64_t word(float distance, Row row) {
  int32_t bits;
  const float d = std::isnan(distance) ? std::numeric_limits<float>::infinity() : distance;
  std::memcpy(&bits, &d, sizeof bits);
  return static_cast<int64_t>(bits ^ ((bits >> 31) & 0x7fffffff)) << 32 | static_cast<int64_t>(row) << 1;
}
Row row_of(int64_t word) { return static_cast<Row>(word & 0xffffffff) >> 1; }
float distance_of(int64_t word) {
  const auto ordered = static_cast<int32_t>(word >> 32);
  const int32_t bits = ordered ^ ((ordered >> 31) & 0x7fffffff);
  float d;
  std::memcpy(&d, &bits, sizeof d);
  return d;
}

}  // namespace

// Distances of a query, prepared for centers or for blocks, from all centers as they are compared: squared, or products.
void Inverted::from_centers(const void* centers, const void* blocks, float* out) const {
  if (!centers_) return blocks_->centers(blocks, 0, n_lists_, out);
  for (size_t i = 0; i < n_lists_; i += kBlock)
    centers_->score_range(centers, static_cast<Row>(i), std::min(kBlock, n_lists_ - i), out + i);
}

// One query at a time, with memory that serves the next one too.
class Inverted::Answer {
 public:
  Answer(const Inverted& index, const Request& request, const Effort& effort)
      : index_(index), r_(request), effort_(effort), centers_(buffer(index.prepared_centers())),
        codes_(buffer(index.blocks_ ? index.blocks_->prepared_bytes() : index.codes_->prepared_bytes())),
        store_(buffer(index.store_->prepared_bytes())), from_(index.n_lists_), numbers_(index.n_lists_) {
    std::iota(numbers_.begin(), numbers_.end(), Row{0});
    if (!effort.holds) return;
    std::erase_if(numbers_, [&](Row list) { return effort.holds[list] == 0; });
    held_ = std::accumulate(effort.holds, effort.holds + index.n_lists_, uint64_t{0});
    some_.resize(numbers_.size());
  }

  void answer(size_t q, Work& work) {
    const uint8_t* query = r_.queries + q * r_.query_bytes;
    if (index_.blocks_) index_.blocks_->prepare(query, codes_.get());
    guided_ = guided(q);
    if (guided_) {
      read(q, work);
      if (r_.counts[q] == r_.k) return;
      guided_ = false;  // they hold too little
    }
    if (index_.centers_) index_.centers_->prepare(query, centers_.get());
    choose(q);
    work.distances += index_.n_lists_;
    if (against(q)) {  // nothing is answered
      Best none(r_.k);
      return write_answer(*index_.rows_, r_, q, none);
    }
    read(q, work);
  }

 private:
  void read(size_t q, Work& work) {
    if (index_.blocks_)
      by_blocks(q, work);
    else if (index_.codes_ != index_.store_)
      by_codes(q, work);
    else
      by_vectors(q, work);
  }

  // Whether the lists that something else found are all that are to be looked at: others are out of reach, or too many.
  bool guided(size_t q) {
    if (effort_.n_near == 0 || effort_.holds) return false;
    const uint32_t* near = effort_.near + q * effort_.n_near;
    const float* distances = effort_.near_distances + q * effort_.n_near;
    if (near[0] == kNone) return false;
    const float bound = farthest(r_, q, distances[0], effort_.reach);
    lists_.clear();
    n_read_ = 0;
    for (size_t i = 0; i < effort_.n_near && near[i] != kNone; ++i) {
      if (distances[i] > bound || lists_.size() == effort_.width) return true;
      lists_.push_back(word(distances[i], near[i]));
    }
    return lists_.size() == effort_.width || lists_.size() == index_.n_lists_;
  }

  // The lists to look at, nearest first: those within reach, and at most `width`.
  void choose(size_t q) {
    index_.from_centers(centers_.get(), codes_.get(), from_.data());
    for (size_t i = 0; i < some_.size(); ++i) some_[i] = from_[numbers_[i]];
    choose_within(farthest(r_, q, least(distances(), numbers_.size()), effort_.reach), effort_.width);
    n_read_ = 0;
  }

  // Whether the lists around the query hold much less that passes than others do: what is near then lies on all sides at
  // about one distance, and neither reach nor codes were measured for that.
  bool against(size_t q) {
    if (!effort_.holds || std::isinf(effort_.reach)) return false;
    float bound = farthest(r_, q, least(from_.data(), from_.size()), effort_.reach);
    const size_t few = std::min(kAround, from_.size());
    around_.assign(from_.begin(), from_.end());
    std::nth_element(around_.begin(), around_.begin() + static_cast<ptrdiff_t>(few - 1), around_.end());
    bound = std::max(bound, around_[few - 1]);
    uint64_t lists = 0, held = 0;
    for (size_t i = 0; i < from_.size(); ++i)
      if (from_[i] <= bound) ++lists, held += effort_.holds[i];
    return held * from_.size() * kAgainst < held_ * lists;
  }

  // Distances of the lists in numbers_.
  const float* distances() const { return effort_.holds ? some_.data() : from_.data(); }

  // The nearest lists, at most `most`, within a bound.
  void choose_within(float bound, size_t most) {
    const size_t n = numbers_.size(), room = 2 * most;
    lists_.resize(std::min(room, n) + kBlock);
    size_t kept = 0;
    for (size_t i = 0; i < n; i += kBlock) {
      kept += kernels::active().within(distances() + i, numbers_.data() + i, std::min(kBlock, n - i), bound, lists_.data() + kept);
      if (kept <= room && (i + kBlock < n || kept <= most)) continue;
      const auto last = lists_.begin() + static_cast<ptrdiff_t>(most);
      std::nth_element(lists_.begin(), last - 1, lists_.begin() + static_cast<ptrdiff_t>(kept));
      bound = distance_of(*(last - 1));
      kept = most;
    }
    lists_.resize(kept);
    std::sort(lists_.begin(), lists_.end());
  }

  // More lists, where those read so far hold too little that passes, or others may hold what is nearer than the k-th of so
  // many found, whose distance by vectors is known; false if none.
  bool more(size_t q, size_t n_found, float kth) {
    if (guided_ || n_read_ == numbers_.size()) return false;
    if (n_found < r_.k) {  // the nearest are the first of all
      choose_within(std::numeric_limits<float>::infinity(), 2 * n_read_ + 2);
    } else {
      if (std::isinf(effort_.beyond)) return false;
      choose_within(farthest_beyond(r_, q, kth, effort_.beyond), n_read_ + n_read_ / 2 + kNext);
    }
    return lists_.size() > n_read_;
  }

  // Calls take(list, first slot, n) for chunks of the lists that were chosen and not yet read.
  template <typename Take> void for_each_chunk(Work& work, Take take) {
    work.lists += lists_.size() - n_read_;
    for (; n_read_ < lists_.size(); ++n_read_) {
      const size_t i = n_read_;
      const Row list = row_of(lists_[i]);
      if (i + 1 < lists_.size()) ask(row_of(lists_[i + 1]));
      for (size_t c = list; c != kNone;) {
        const Chunk& chunk = *index_.at(c);
        const size_t count = __atomic_load_n(&chunk.count, __ATOMIC_ACQUIRE);
        take(list, chunk.first, count);
        work.distances += count;
        c = __atomic_load_n(&chunk.next, __ATOMIC_ACQUIRE);
      }
    }
  }

  void ask(Row list) const {
    const Chunk& chunk = *index_.at(list);
    const size_t count = __atomic_load_n(&chunk.count, __ATOMIC_ACQUIRE);
    if (index_.blocks_) return index_.blocks_->prefetch(chunk.first, count);
    Row rows[kAhead];
    const size_t n = std::min<size_t>(kAhead, count);
    for (size_t i = 0; i < n; ++i)
      rows[i] = index_.codes_ != index_.store_ ? chunk.first + static_cast<Row>(i)
                                               : *index_.members_->as<Row>(chunk.first + i);
    index_.codes_->prefetch(rows, n);
  }

  void by_vectors(size_t q, Work& work) {
    const Rows& rows = *index_.rows_;
    const Scorer& store = *index_.store_;
    store.prepare(r_.queries + q * r_.query_bytes, store_.get());
    met_.clear();
    Best best(r_.k);
    do {
      for_each_chunk(work, [&](Row, Row first, size_t count) {
        for (size_t from = 0; from < count; from += kStrip) {
          const Row* members = index_.members_->as<Row>(first + from);
          const size_t n = std::min(kStrip, count - from);
          if (from + n < count) store.prefetch(members + n, std::min(kStrip, count - from - n));
          store.score(store_.get(), members, n, best.bound(), distance_);
          for (size_t i = 0; i < n; ++i) {
            if (distance_[i] > best.bound()) continue;
            const Row row = rows.first_passing(members[i], r_.filter);
            if (row != kNone && is_first(members[i])) best.offer({distance_[i], members[i], rows.id(row)});
          }
        }
      });
    } while (more(q, best.found().size(), best.bound()));
    write_answer(rows, r_, q, best);
  }

  void by_codes(size_t q, Work& work) {
    const Scorer& codes = *index_.codes_;
    codes.prepare(r_.queries + q * r_.query_bytes, codes_.get());
    by_estimates(q, work, [&](Row, Row first, size_t n, int64_t* out) {
      std::iota(slots_, slots_ + n, first);
      codes.score(codes_.get(), slots_, n, bound_, distance_);  // by a bound: codes of two stages leave most after the first
      size_t kept = 0;
      for (size_t i = 0; i < n; ++i) {  // without a branch to guess
        out[kept] = word(distance_[i], first + static_cast<Row>(i));
        kept += !(distance_[i] > bound_);
      }
      return kept;
    });
  }

  void by_blocks(size_t q, Work& work) {
    const ListScorer& blocks = *index_.blocks_;
    by_estimates(q, work, [&](Row list, Row first, size_t n, int64_t* out) {
      float base = from_[list];
      if (index_.centers_ || guided_) blocks.centers(codes_.get(), list, 1, &base);  // lists were chosen by something else
      return blocks.scan(codes_.get(), base, first, n, bound_, out);
    });
  }

  // scan(list, first slot, n, out) puts words of the slots out that are not above bound_, and returns how many.
  template <typename Scan> void by_estimates(size_t q, Work& work, Scan scan) {
    n_near_ = n_held_ = 0;
    bound_ = kth_ = std::numeric_limits<float>::infinity();
    make_room();
    do {
      for_each_chunk(work, [&](Row list, Row first, size_t count) {
        for (size_t from = 0; from < count; from += kBlock) {
          n_near_ += scan(list, first + static_cast<Row>(from), std::min(kBlock, count - from), near_.data() + n_near_);
          if (n_near_ >= room_) cut(q, work);
        }
      });
      cut(q, work);
    } while (more(q, n_near_, kth_));
    if (n_near_ > effort_.most) n_near_ = 0;
    rank(q, work);
  }

  void make_room() {
    room_ = 2 * std::max(effort_.depth, n_near_) + kBlock;
    near_.resize(std::max(near_.size(), room_ + kBlock));
  }

  // Only those with rows that pass are kept, and of these the nearest.
  void cut(size_t q, Work& work) {
    const auto begin = near_.begin();
    if (r_.filter.bits || r_.filter.hidden || !effort_.all_held) {
      const auto end = std::remove_if(begin + static_cast<ptrdiff_t>(n_held_), begin + static_cast<ptrdiff_t>(n_near_),
                                      [&](int64_t w) {
        return index_.rows_->first_passing(*index_.members_->as<Row>(row_of(w)), r_.filter) == kNone;
      });
      n_near_ = static_cast<size_t>(end - begin);
    }
    if (index_.copies_) once();
    const bool spread = !std::isinf(effort_.spread);
    if ((spread || !std::isinf(effort_.beyond)) && n_near_ >= r_.k) kth_ = kth(q, work);
    if (spread && n_near_ >= r_.k) {
      bound_ = farthest_beyond(r_, q, kth_, effort_.spread);
      const auto end = std::partition(begin, begin + static_cast<ptrdiff_t>(n_near_), [&](int64_t w) { return !(distance_of(w) > bound_); });
      n_near_ = std::max(static_cast<size_t>(end - begin), r_.k);  // were it less, the first k by codes
      make_room();
    } else if (!spread && n_near_ > effort_.depth) {
      const auto last = begin + static_cast<ptrdiff_t>(effort_.depth);
      std::nth_element(begin, last - 1, begin + static_cast<ptrdiff_t>(n_near_));
      n_near_ = effort_.depth;
      bound_ = distance_of(near_[n_near_ - 1]);
    }
    n_held_ = n_near_;
  }

  // Whether a node is met for the first time; always, where lists hold it once.
  bool is_first(Row node) { return !index_.copies_ || met_.insert(node).second; }

  // Of nodes that are in near_ twice only the nearer slot is kept.
  void once() {
    const size_t size = std::bit_ceil(4 * n_near_ + 1);
    places_.assign(size, kNone);
    size_t kept = 0;
    for (size_t i = 0; i < n_near_; ++i) {
      const Row node = *index_.members_->as<Row>(row_of(near_[i]));
      size_t at = node * uint64_t{0x9e3779b97f4a7c15} >> 32 & (size - 1);
      while (places_[at] != kNone && *index_.members_->as<Row>(row_of(near_[places_[at]])) != node) at = (at + 1) & (size - 1);
      if (places_[at] == kNone) {
        places_[at] = static_cast<Row>(kept);
        near_[kept++] = near_[i];
      } else {
        near_[places_[at]] = std::min(near_[places_[at]], near_[i]);
      }
    }
    n_near_ = kept;
  }

  // About how far the k-th nearest so far is: of twice as many by codes, which come first then, the k-th by their vectors.
  float kth(size_t q, Work& work) {
    const size_t n = std::min(n_near_, 2 * r_.k);
    std::nth_element(near_.begin(), near_.begin() + static_cast<ptrdiff_t>(n - 1), near_.begin() + static_cast<ptrdiff_t>(n_near_));
    compare(q, n);
    work.ranked += n;
    for (float& d : exact_)
      if (std::isnan(d)) d = std::numeric_limits<float>::infinity();
    const auto last = exact_.begin() + static_cast<ptrdiff_t>(r_.k - 1);
    std::nth_element(exact_.begin(), last, exact_.end());
    return *last;
  }

  // Distances of the first n in near_ by their vectors, in exact_.
  void compare(size_t q, size_t n) {
    const Scorer& store = *index_.store_;
    nodes_.resize(n);
    for (size_t i = 0; i < n; ++i) nodes_[i] = *index_.members_->as<Row>(row_of(near_[i]));
    store.prefetch(nodes_.data(), n);
    store.prepare(r_.queries + q * r_.query_bytes, store_.get());
    exact_.resize(n);
    store.score(store_.get(), nodes_.data(), n, std::numeric_limits<float>::infinity(), exact_.data());
  }

  void rank(size_t q, Work& work) {
    const Rows& rows = *index_.rows_;
    const size_t n = n_near_;
    compare(q, n);
    Best best(r_.k);
    for (size_t i = 0; i < n; ++i) {
      if (exact_[i] > best.bound()) continue;
      const Row row = rows.first_passing(nodes_[i], r_.filter);
      if (row != kNone) best.offer({exact_[i], nodes_[i], rows.id(row)});
    }
    write_answer(rows, r_, q, best);
    work.ranked += n;
  }

  const Inverted& index_;
  const Request& r_;
  const Effort& effort_;
  Buffer centers_, codes_, store_;
  uint64_t held_ = 0;  // of all that passes, in lists
  std::vector<float> around_;
  std::vector<float> from_, some_, exact_;  // of all lists, of those in numbers_ where they are not all
  std::vector<Row> numbers_;    // of lists: 0, 1, 2, ..., or those in which something passes
  std::vector<int64_t> lists_;  // words, nearest first
  size_t n_read_ = 0;  // of lists_
  bool guided_ = false;  // they were found by something else
  std::vector<int64_t> near_;
  size_t n_near_ = 0, n_held_ = 0;  // words in near_; the first of them are known to pass
  size_t room_ = 0;                 // words in near_ at which it is cut
  float bound_ = 0;                 // what is above it is not among the nearest by codes
  float kth_ = 0;                   // distance of the k-th nearest, where it was asked for
  std::vector<Row> nodes_, places_;
  std::unordered_set<Row> met_;
  float distance_[kBlock];
  Row slots_[kBlock];
};

Work Inverted::search(const Request& asked, const Effort& effort, const Poll& poll) const {
  std::atomic<uint64_t> n_distances{0}, n_lists{0}, n_ranked{0};
  parallel_for(asked.n, kGrain, asked.threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows_->readers());
    validity_.check(reading);
    Request r = asked;
    r.filter = rows_->begin(reading, asked.filter, ~size_t{0});
    Answer answer(*this, r, effort);
    Work work{};
    for (size_t q = begin; q < end; ++q) {
      answer.answer(q, work);
      poll_if_due(poll);
    }
    n_distances += work.distances;
    n_lists += work.lists;
    n_ranked += work.ranked;
  }, poll);
  return {n_distances, n_lists, n_ranked};
}

void Inverted::gaps(const Request& r, float* out, float* nearest, const Poll& poll) const {
  parallel_for(r.n, kGrain, r.threads, [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(centers_ ? centers_->prepared_bytes() : blocks_->prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      float* row = out + q * n_lists_;
      const uint8_t* query = r.queries + q * r.query_bytes;
      centers_ ? centers_->prepare(query, prepared.get()) : blocks_->prepare(query, prepared.get());
      from_centers(prepared.get(), prepared.get(), row);
      nearest[q] = in_reach(r, q, least(row, n_lists_));
      for (size_t i = 0; i < n_lists_; ++i) row[i] = in_reach(r, q, row[i]) - nearest[q];
    }
  }, poll);
}

void Inverted::estimates(const Request& r, const uint32_t* slots, const uint32_t* lists, size_t n_each, float* out,
                         const Poll& poll) const {
  parallel_for(r.n, kGrain, r.threads, [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(blocks_ ? blocks_->prepared_bytes() : codes_->prepared_bytes());
    int64_t words[ListScorer::kUnit];
    for (size_t q = begin; q < end; ++q) {
      const uint8_t* query = r.queries + q * r.query_bytes;
      blocks_ ? blocks_->prepare(query, prepared.get()) : codes_->prepare(query, prepared.get());
      for (size_t i = q * n_each; i < (q + 1) * n_each; ++i) {
        if (blocks_) {
          float base;
          blocks_->centers(prepared.get(), lists[i], 1, &base);
          const size_t n = blocks_->scan(prepared.get(), base, slots[i] / ListScorer::kUnit * ListScorer::kUnit,
                                         ListScorer::kUnit, std::numeric_limits<float>::infinity(), words);
          const auto* found = std::find_if(words, words + n, [&](int64_t w) { return row_of(w) == slots[i]; });
          out[i] = found == words + n ? std::numeric_limits<float>::infinity() : distance_of(*found);
        } else {
          codes_->score(prepared.get(), slots + i, 1, std::numeric_limits<float>::infinity(), out + i);
        }
        out[i] = in_reach(r, q, out[i]);
      }
    }
  }, poll);
}

void Inverted::passing(const Filter& asked, uint32_t* out, const Poll& poll) const {
  const Readers::Reading reading(*rows_->readers());
  validity_.check(reading);
  const Filter filter = rows_->begin(reading, asked, ~size_t{0});
  for (size_t list = 0; list < n_lists_; ++list) {
    out[list] = 0;
    for (size_t c = list; c != kNone;) {
      const Chunk& chunk = *at(c);
      const size_t count = __atomic_load_n(&chunk.count, __ATOMIC_ACQUIRE);
      const Row* members = members_->as<Row>(chunk.first);
      for (size_t i = 0; i < count; ++i) out[list] += rows_->first_passing(members[i], filter) != kNone;
      c = __atomic_load_n(&chunk.next, __ATOMIC_ACQUIRE);
    }
    if (list % kBlock == 0) poll_if_due(poll);
  }
}

}  // namespace nearly::lists
