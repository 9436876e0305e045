#include "lists/inverted.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "lists/best.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kBlock = 256;  // slots scored at a time
constexpr size_t kGrain = 4;    // queries that a thread takes at a time
constexpr size_t kAhead = 8;    // rows of the next list that are asked for; the hardware follows

struct Near {
  float distance;
  Row at;
};
bool before(const Near& a, const Near& b) { return a.distance != b.distance ? a.distance < b.distance : a.at < b.at; }

// What distances from centers are divided by: products grow with the query, the order of lists does not.
float length(const Request& r, size_t q) {
  if (r.metric != Metric::kDot) return 1.0f;
  const auto* query = reinterpret_cast<const float*>(r.queries + q * r.query_bytes);
  double sum = 0;
  for (size_t j = 0; j < r.query_bytes / 4; ++j) sum += static_cast<double>(query[j]) * query[j];
  return sum > 0 ? static_cast<float>(std::sqrt(sum)) : 1.0f;
}

// Distances of a query from all centers, in the unit of `reach`. Under cosine centers are compared by squared distance,
// whatever the length of what codes compare; what is no number is far away.
void from_centers(const Scorer& centers, const Request& r, size_t q, size_t n, void* prepared, float* out) {
  centers.prepare(r.queries + q * r.query_bytes, prepared);
  for (size_t i = 0; i < n; i += kBlock)
    centers.score_range(prepared, static_cast<Row>(i), std::min(kBlock, n - i), out + i);
  const float scale = 1.0f / length(r, q);
  const bool squared = r.metric == Metric::kL2 || r.metric == Metric::kCosine;
  for (size_t i = 0; i < n; ++i) {
    const float d = squared ? std::sqrt(std::max(out[i], 0.0f)) : out[i] * scale;
    out[i] = std::isnan(d) ? std::numeric_limits<float>::infinity() : d;
  }
}

}  // namespace

// One query at a time, with memory that serves the next one too.
class Inverted::Answer {
 public:
  Answer(const Inverted& index, const Request& request, const Effort& effort)
      : index_(index), r_(request), effort_(effort), centers_(buffer(index.centers_->prepared_bytes())),
        codes_(buffer(index.codes_->prepared_bytes())), store_(buffer(index.store_->prepared_bytes())),
        from_(index.n_lists_) {}

  void answer(size_t q, Work& work) {
    choose(q);
    work.distances += index_.n_lists_;
    if (index_.coded())
      by_codes(q, work);
    else
      by_vectors(q, work);
  }

 private:
  // The lists to look at, nearest first.
  void choose(size_t q) {
    const size_t n = index_.n_lists_;
    from_centers(*index_.centers_, r_, q, n, centers_.get(), from_.data());
    const float limit = *std::min_element(from_.begin(), from_.end()) + effort_.reach;
    lists_.clear();
    for (size_t i = 0; i < n; ++i)
      if (from_[i] <= limit) lists_.push_back({from_[i], static_cast<Row>(i)});
    if (lists_.size() > effort_.width) {
      std::nth_element(lists_.begin(), lists_.begin() + static_cast<ptrdiff_t>(effort_.width), lists_.end(), before);
      lists_.resize(effort_.width);
    }
    std::sort(lists_.begin(), lists_.end(), before);
    n_read_ = 0;
  }

  // More lists, where those read so far hold too little that passes; false when all are read.
  bool more() {
    if (n_read_ == index_.n_lists_) return false;
    if (n_read_ == lists_.size()) {  // the nearest are the first of all
      const size_t wanted = std::min(2 * n_read_ + 2, index_.n_lists_);
      lists_.resize(index_.n_lists_);
      for (size_t i = 0; i < lists_.size(); ++i) lists_[i] = {from_[i], static_cast<Row>(i)};
      std::partial_sort(lists_.begin(), lists_.begin() + static_cast<ptrdiff_t>(wanted), lists_.end(), before);
      lists_.resize(wanted);
    }
    return true;
  }

  // Calls take(first slot, n) for blocks of the lists that were chosen and not yet read.
  template <typename Take> void for_each_block(Work& work, Take take) {
    work.lists += lists_.size() - n_read_;
    for (; n_read_ < lists_.size(); ++n_read_) {
      const size_t i = n_read_;
      if (i + 1 < lists_.size()) ask(*index_.at(lists_[i + 1].at));
      for (size_t c = lists_[i].at; c != kNone;) {
        const Chunk& chunk = *index_.at(c);
        const size_t count = __atomic_load_n(&chunk.count, __ATOMIC_ACQUIRE);
        for (size_t j = 0; j < count; j += kBlock)
          take(chunk.first + static_cast<Row>(j), std::min(kBlock, count - j));
        work.distances += count;
        c = __atomic_load_n(&chunk.next, __ATOMIC_ACQUIRE);
      }
    }
  }

  void ask(const Chunk& chunk) const {
    Row rows[kAhead];
    const size_t n = std::min<size_t>(kAhead, __atomic_load_n(&chunk.count, __ATOMIC_ACQUIRE));
    for (size_t i = 0; i < n; ++i)
      rows[i] = index_.coded() ? chunk.first + static_cast<Row>(i) : *index_.members_->as<Row>(chunk.first + i);
    index_.codes_->prefetch(rows, n);
  }

  void by_vectors(size_t q, Work& work) {
    const Rows& rows = *index_.rows_;
    const Scorer& store = *index_.store_;
    store.prepare(r_.queries + q * r_.query_bytes, store_.get());
    Best best(r_.k);
    do {
      for_each_block(work, [&](Row first, size_t n) {
        const Row* members = index_.members_->as<Row>(first);
        store.score(store_.get(), members, n, best.bound(), distance_);
        for (size_t i = 0; i < n; ++i) {
          if (distance_[i] > best.bound()) continue;
          const Row row = rows.first_passing(members[i], r_.filter);
          if (row != kNone) best.offer({distance_[i], members[i], rows.id(row)});
        }
      });
    } while (best.found().size() < r_.k && more());
    write_answer(rows, r_, q, best);
  }

  void by_codes(size_t q, Work& work) {
    const Scorer& codes = *index_.codes_;
    const uint8_t* query = r_.queries + q * r_.query_bytes;
    codes.prepare(query, codes_.get());
    const size_t room = 2 * effort_.depth + kBlock;
    near_.resize(room + kBlock);
    size_t n_near = 0, looked_at = 0;
    float bound = std::numeric_limits<float>::infinity();
    // Only those with rows that pass are kept, and of these the nearest.
    const auto cut = [&] {
      const auto end = std::remove_if(near_.begin() + static_cast<ptrdiff_t>(looked_at),
                                      near_.begin() + static_cast<ptrdiff_t>(n_near), [&](const Near& c) {
        return index_.rows_->first_passing(*index_.members_->as<Row>(c.at), r_.filter) == kNone;
      });
      n_near = static_cast<size_t>(end - near_.begin());
      if (n_near > effort_.depth) {
        const auto last = near_.begin() + static_cast<ptrdiff_t>(effort_.depth);
        std::nth_element(near_.begin(), last - 1, near_.begin() + static_cast<ptrdiff_t>(n_near), before);
        n_near = effort_.depth;
        bound = near_[n_near - 1].distance;
      }
      looked_at = n_near;
    };
    do {
      for_each_block(work, [&](Row first, size_t n) {
        codes.score_range(codes_.get(), first, n, distance_);
        for (size_t i = 0; i < n; ++i) {  // without a branch to guess
          near_[n_near] = {distance_[i], first + static_cast<Row>(i)};
          n_near += distance_[i] <= bound;
        }
        if (n_near >= room) cut();
      });
      cut();
    } while (n_near < r_.k && more());
    rank(q, n_near, work);
  }

  // Compares the nearest by their vectors.
  void rank(size_t q, size_t n, Work& work) {
    const Rows& rows = *index_.rows_;
    const Scorer& store = *index_.store_;
    nodes_.clear();
    for (size_t i = 0; i < n; ++i) nodes_.push_back(*index_.members_->as<Row>(near_[i].at));
    store.prefetch(nodes_.data(), n);
    store.prepare(r_.queries + q * r_.query_bytes, store_.get());
    exact_.resize(n);
    store.score(store_.get(), nodes_.data(), n, std::numeric_limits<float>::infinity(), exact_.data());
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
  std::vector<float> from_, exact_;
  std::vector<Near> lists_, near_;
  size_t n_read_ = 0;  // of lists_
  std::vector<Row> nodes_;
  float distance_[kBlock];
};

Work Inverted::search(const Request& r, const Effort& effort, const Poll& poll) const {
  std::atomic<uint64_t> n_distances{0}, n_lists{0}, n_ranked{0};
  parallel_for(r.n, kGrain, r.threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows_->readers());
    validity_.check(reading);
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

void Inverted::gaps(const Request& r, float* out, const Poll& poll) const {
  parallel_for(r.n, kGrain, r.threads, [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(centers_->prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      float* row = out + q * n_lists_;
      from_centers(*centers_, r, q, n_lists_, prepared.get(), row);
      const float nearest = *std::min_element(row, row + n_lists_);
      for (size_t i = 0; i < n_lists_; ++i) row[i] -= nearest;
    }
  }, poll);
}

}  // namespace nearly::lists
