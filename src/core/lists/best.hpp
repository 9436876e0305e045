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

// The k nearest so far: a few in order, more as a heap, with the farthest at hand in either case.
class Best {
 public:
  explicit Best(size_t k) : k_(k) { found_.reserve(std::min(k, kSorted)); }
  float bound() const { return found_.size() < k_ ? std::numeric_limits<float>::infinity() : farthest().distance; }
  void offer(Found f) {
    if (std::isnan(f.distance)) f.distance = std::numeric_limits<float>::infinity();  // sums that overflowed are far away
    const bool full = found_.size() == k_;
    if (full && !nearer(f, farthest())) return;
    if (k_ > kSorted) {
      if (full) {
        std::pop_heap(found_.begin(), found_.end(), Nearer{});
        found_.back() = f;
      } else {
        found_.push_back(f);
      }
      std::push_heap(found_.begin(), found_.end(), Nearer{});
      return;
    }
    if (!full) found_.push_back(f);
    size_t at = found_.size() - 1;
    for (; at > 0 && nearer(f, found_[at - 1]); --at) found_[at] = found_[at - 1];
    found_[at] = f;
  }
  std::vector<Found>& found() { return found_; }

 private:
  struct Nearer {
    bool operator()(const Found& a, const Found& b) const { return nearer(a, b); }
  };
  static constexpr size_t kSorted = 32;
  const Found& farthest() const { return k_ > kSorted ? found_.front() : found_.back(); }

  size_t k_;
  std::vector<Found> found_;
};

inline void write_answer(const Rows& rows, const Request& r, size_t q, Best& best) {
  auto& found = best.found();
  float* distances = r.distances + q * r.k;
  const size_t n = emit(rows, r.filter, found.data(), found.size(), r.k, r.ids + q * r.k, distances);
  for (size_t i = 0; i < n; ++i) distances[i] = seen(r.metric, distances[i]);
  r.counts[q] = static_cast<uint32_t>(n);
}

}  // namespace nearly::lists
