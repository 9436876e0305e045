// What a query keeps of rows whose values are known within bounds.
#pragma once
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rows.hpp"

namespace nearly::lists {

// Numbers met, as far as the k smallest may be among them.
class Smallest {
 public:
  explicit Smallest(size_t k) : k_(k) {
    if (k > kSorted) numbers_.resize(k, std::numeric_limits<float>::infinity());
    for (size_t i = 0; i <= kSorted; ++i)
      few_[i] = i < k ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity();
  }
  // At least k numbers are not above it; of few, it is their largest.
  float limit() const { return limit_; }
  void insert(float x) {
    if (k_ > kSorted) {
      numbers_.push_back(x);
      if (numbers_.size() == 2 * k_) cut();
      return;
    }
    // No branch to guess, and no step that waits for another: each place keeps its number, or takes x or the one after it.
    const Fours here = x - Fours{};
    for (size_t i = 0; i < kSorted; i += 4) {
      Fours old, after;
      std::memcpy(&old, few_ + i, sizeof old);
      std::memcpy(&after, few_ + i + 1, sizeof after);
      const Fours least = old < here ? old : here;
      old = after > least ? after : least;
      std::memcpy(few_ + i, &old, sizeof old);
    }
    limit_ = few_[0];
  }

 private:
  void cut() {
    const auto last = numbers_.begin() + static_cast<ptrdiff_t>(k_ - 1);
    std::nth_element(numbers_.begin(), last, numbers_.end());
    limit_ = *last;
    numbers_.resize(k_);
  }

  typedef float Fours __attribute__((vector_size(16)));
  static constexpr size_t kSorted = 16;  // measured: from here on sorting late is cheaper than keeping an order
  size_t k_;
  float limit_ = std::numeric_limits<float>::infinity();
  alignas(16) float few_[kSorted + 1];  // descending, then the smallest there is
  std::vector<float> numbers_;  // more: k, or fewer than 2 k
};

// The nodes whose value may still be among the k smallest.
class Candidates {
 public:
  explicit Candidates(size_t k) : Candidates(k, 8 * k + 4096) {}
  // Gives up beyond so many.
  Candidates(size_t k, size_t largest) : smallest_(k), full_(4 * k + 64), largest_(largest) {
    nodes_.reserve(std::min<size_t>(full_, 128));
  }

  // No value above it is among the k smallest.
  float limit() const { return limit_; }
  // A node whose value lies between these.
  void offer(Row node, float least, float most) {
    if (!(least <= limit_)) return;
    nodes_.push_back({least, node});
    if (most < limit_) {
      smallest_.insert(most);
      limit_ = smallest_.limit();
    }
    if (nodes_.size() >= full_) shrink();
  }
  void shrink() {
    std::erase_if(nodes_, [&](const Entry& e) { return e.least > limit_; });
    full_ = std::max(full_, 2 * nodes_.size());
    if (nodes_.size() > largest_) give_up();
  }
  // The bounds cannot tell the rows apart, or there are none.
  void give_up() {
    limit_ = -std::numeric_limits<float>::infinity();
    nodes_ = {};
  }
  bool gave_up() const { return limit_ == -std::numeric_limits<float>::infinity(); }
  template <typename Take> void for_each(Take take) const {
    for (const Entry& e : nodes_) take(e.node);
  }

 private:
  struct Entry {
    float least;
    Row node;
  };
  float limit_ = std::numeric_limits<float>::infinity();
  Smallest smallest_;
  size_t full_, largest_;
  std::vector<Entry> nodes_;
};

}  // namespace nearly::lists
