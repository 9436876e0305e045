// What a query keeps of rows whose values are known within bounds.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "base/rows.hpp"

namespace nearly::lists {

// The k smallest numbers met.
class Smallest {
 public:
  explicit Smallest(size_t k) : numbers_(k, std::numeric_limits<float>::infinity()) {}
  float largest() const { return numbers_.front(); }
  // Takes the place of the largest, which is above it.
  void insert(float x) {
    if (numbers_.size() > kSorted) {
      std::pop_heap(numbers_.begin(), numbers_.end());
      numbers_.back() = x;
      std::push_heap(numbers_.begin(), numbers_.end());
      return;
    }
    float below = -std::numeric_limits<float>::infinity();  // no branch to guess
    for (size_t i = numbers_.size(); i-- > 0;) {
      const float old = numbers_[i];
      numbers_[i] = std::max(below, std::min(old, x));
      below = old;
    }
  }

 private:
  static constexpr size_t kSorted = 64;  // chosen by hand
  std::vector<float> numbers_;           // descending; a heap when they are more
};

// The nodes whose value may still be among the k smallest.
class Candidates {
 public:
  explicit Candidates(size_t k) : smallest_(k), full_(4 * k + 64), largest_(8 * k + 4096) {
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
      limit_ = smallest_.largest();
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
