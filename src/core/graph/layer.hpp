// Neighbor lists of one layer: u32 words, read by anyone at any time, written by one writer.
#pragma once
#include <memory>
#include <vector>

#include "base/table.hpp"

namespace nearly::graph {

// A list is `degree` words, filled from the front, kNone after the last. Words are atomic: a reader that meets a list
// being rewritten sees some old and some new neighbors, all of them nodes that exist.
class Layer {
 public:
  Layer(std::shared_ptr<Table> lists, std::shared_ptr<Table> slots)
      : lists_(std::move(lists)), slots_(std::move(slots)), degree_(lists_->stride() / 4) {}

  size_t degree() const { return degree_; }
  const std::shared_ptr<Table>& lists() const { return lists_; }
  const std::shared_ptr<Table>& slots() const { return slots_; }
  // The list of a node; layers above the ground hold some nodes only and find them through slots.
  const Row* list(Row node) const {
    return lists_->as<Row>(slots_ ? __atomic_load_n(slots_->as<Row>(node), __ATOMIC_ACQUIRE) : node);
  }
  bool holds(Row node) const {
    return !slots_ || __atomic_load_n(slots_->as<Row>(node), __ATOMIC_ACQUIRE) != kNone;
  }
  void prefetch(Row node) const {
    const Row* words = list(node);
    for (size_t i = 0; i < degree_ && i < kAsked; i += 16) __builtin_prefetch(words + i);
  }
  static Row load(const Row* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

  size_t read(Row node, Row* out) const {
    const Row* from = list(node);
    size_t n = 0;
    for (; n < degree_; ++n) {
      const Row v = load(from + n);
      if (v == kNone) break;
      out[n] = v;
    }
    return n;
  }
  void write(Row node, const Row* neighbors, size_t n) {
    Row* to = const_cast<Row*>(list(node));
    for (size_t i = 0; i < degree_; ++i) __atomic_store_n(to + i, i < n ? neighbors[i] : kNone, __ATOMIC_RELEASE);
  }

  static constexpr size_t kAsked = 256;  // words of a list that are asked for

 private:
  std::shared_ptr<Table> lists_, slots_;
  size_t degree_;
};

}  // namespace nearly::graph
