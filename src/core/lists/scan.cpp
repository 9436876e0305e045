#include "lists/scan.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>

namespace nearly::lists {
namespace {

constexpr size_t kBlock = 256;

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<void, Free>;
Buffer buffer(size_t bytes) { return Buffer(std::aligned_alloc(64, (bytes + 63) / 64 * 64)); }

// The k nearest so far, a heap with the farthest on top.
class Best {
 public:
  explicit Best(size_t k) : k_(k) { heap_.reserve(k); }
  float bound() const { return heap_.size() < k_ ? std::numeric_limits<float>::infinity() : heap_.front().distance; }
  void offer(const Found& f) {
    if (heap_.size() == k_) {
      if (!nearer(f, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), nearer);
      heap_.back() = f;
    } else {
      heap_.push_back(f);
    }
    std::push_heap(heap_.begin(), heap_.end(), nearer);
  }
  std::vector<Found>& found() { return heap_; }

 private:
  size_t k_;
  std::vector<Found> heap_;
};

// Calls take(node, distance) for every node, a block at a time.
template <typename Take>
void for_each(const Scorer& scorer, const void* prepared, size_t n_nodes, const std::vector<Row>* only, Take take) {
  float distance[kBlock];
  const size_t n = only ? only->size() : n_nodes;
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    if (only)
      scorer.score(prepared, only->data() + i, block, std::numeric_limits<float>::infinity(), distance);
    else
      scorer.score_range(prepared, static_cast<Row>(i), block, distance);
    for (size_t j = 0; j < block; ++j) take(only ? (*only)[i + j] : static_cast<Row>(i + j), distance[j]);
  }
}

}  // namespace

void scan(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r,
          const Poll& poll) {
  const auto answer = [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(scorer.prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      scorer.prepare(r.queries + q * r.query_bytes, prepared.get());
      Best best(std::min(r.k, std::max<size_t>(1, n_nodes)));
      for_each(scorer, prepared.get(), n_nodes, only, [&](Row node, float d) {
        if (d > best.bound()) return;
        const Row row = rows.first_passing(node, r.filter);
        if (row != kNone) best.offer({d, node, rows.id(row)});
      });
      auto& found = best.found();
      float* distances = r.distances + q * r.k;
      const size_t n = emit(rows, r.filter, found.data(), found.size(), r.k, r.ids + q * r.k, distances);
      for (size_t i = 0; i < n; ++i) distances[i] = seen(r.metric, distances[i]);
      r.counts[q] = static_cast<uint32_t>(n);
    }
  };
  parallel_for(r.n, 1, r.threads, answer, poll);
}

Ragged scan_radius(const Scorer& scorer, const Rows& rows, size_t n_nodes, float radius, const Request& r,
                   const Poll& poll) {
  Ragged out{std::vector<std::vector<int64_t>>(r.n), std::vector<std::vector<float>>(r.n)};
  const auto answer = [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(scorer.prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      scorer.prepare(r.queries + q * r.query_bytes, prepared.get());
      std::vector<std::pair<float, int64_t>> inside;
      for_each(scorer, prepared.get(), n_nodes, nullptr, [&](Row node, float d) {
        const float shown = seen(r.metric, d);
        if (!(shown <= radius)) return;
        for (Row row = rows.first(node); row != kNone; row = rows.next(row))
          if (r.filter.passes(row)) inside.emplace_back(shown, rows.id(row));
      });
      std::sort(inside.begin(), inside.end());
      for (const auto& [d, id] : inside) {
        out.distances[q].push_back(d);
        out.ids[q].push_back(id);
      }
    }
  };
  parallel_for(r.n, 1, r.threads, answer, poll);
  return out;
}

}  // namespace nearly::lists
