// The k nearest so far, and how they are written out: shared by the ways to scan.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "lists/scan.hpp"

namespace nearly::lists {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<void, Free>;
inline Buffer buffer(size_t bytes) { return Buffer(std::aligned_alloc(64, (bytes + 63) / 64 * 64)); }

// Answers query q, within a Reading; returns how many nodes were compared.
size_t scan_one(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r,
                size_t q, void* prepared, const Poll& poll);

constexpr size_t kFewest = 10;  // by code, one of which is to be right: of one alone the code may be far off
// `scan_coded` by panels.
Compared scan_panels(const Scorer& scorer, const Coded& coded, const PanelScorer& panels, const Rows& rows, size_t n_nodes,
                     const std::vector<Row>* only, const Request& r, const Poll& poll);

// A heap with the farthest on top.
class Best {
 public:
  explicit Best(size_t k) : k_(k) {}
  float bound() const { return heap_.size() < k_ ? std::numeric_limits<float>::infinity() : heap_.front().distance; }
  void offer(Found f) {
    if (std::isnan(f.distance)) f.distance = std::numeric_limits<float>::infinity();  // sums that overflowed are far away
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

inline void write_answer(const Rows& rows, const Request& r, size_t q, Best& best) {
  auto& found = best.found();
  float* distances = r.distances + q * r.k;
  const size_t n = emit(rows, r.filter, found.data(), found.size(), r.k, r.ids + q * r.k, distances);
  for (size_t i = 0; i < n; ++i) distances[i] = seen(r.metric, distances[i]);
  r.counts[q] = static_cast<uint32_t>(n);
}

}  // namespace nearly::lists
