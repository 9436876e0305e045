// Which of the labels that many nodes have a node has, and where walks within a label start.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/table.hpp"

namespace nearly::graph {

// Nodes name a set of labels, four bytes each, and equal sets are kept once: with one label a node there are no more sets
// than labels. Sets, nodes and labels are only appended to. Written by the one writer; who walks for others is given bits.
class Labels {
 public:
  using Label = uint16_t;
  static constexpr size_t kMost = 65536;
  static constexpr size_t kEntries = 8;  // nodes at most that walks within a label start from
  static constexpr size_t kShared = 64;  // labels of a node that count when its neighbors are chosen

  // Ends of set i in `members`, which ascend within a set; set 0 is empty. `entries`: kEntries nodes a label, kNone where
  // there are fewer.
  Labels(std::shared_ptr<Table> of_node, std::shared_ptr<Table> ends, std::shared_ptr<Table> members,
         std::shared_ptr<Table> entries)
      : of_node_(std::move(of_node)), ends_(std::move(ends)), members_(std::move(members)), entries_(std::move(entries)) {}

  // In order of number: those that fewest nodes had when labels were counted first are the last.
  class Set {
   public:
    Set() = default;
    Set(const Label* begin, const Label* end) : begin_(begin), end_(end) {}
    const Label* begin() const { return begin_; }
    const Label* end() const { return end_; }
    size_t size() const { return static_cast<size_t>(end_ - begin_); }
    Set last(size_t n) const { return {end_ - std::min(n, size()), end_}; }

   private:
    const Label *begin_ = nullptr, *end_ = nullptr;
  };

  size_t n_nodes() const { return of_node_->rows(); }
  size_t n_labels() const { return entries_->rows(); }
  uint32_t number(Row node) const { return *of_node_->as<uint32_t>(node); }
  Set at(uint32_t number) const {
    const uint32_t* ends = ends_->as<uint32_t>();
    return {members_->as<Label>(number ? ends[number - 1] : 0), members_->as<Label>(ends[number])};
  }
  Set of(Row node) const { return at(number(node)); }
  bool has(Row node, Label label) const {
    const Set set = of(node);
    return set.size() < 16 ? std::find(set.begin(), set.end(), label) != set.end()
                           : std::binary_search(set.begin(), set.end(), label);
  }
  // Bit i: the node has the i-th of at most kShared labels.
  uint64_t shared(Set own, Row node) const {
    const Set theirs = of(node);
    uint64_t bits = 0, bit = 1;
    const Label* at = theirs.begin();
    for (const Label label : own) {
      while (at != theirs.end() && *at < label) ++at;
      if (at == theirs.end()) break;
      if (*at == label) bits |= bit;
      bit <<= 1;
    }
    return bits;
  }

  std::vector<Row> entries(Label label) const {
    const Row* nodes = entries_->as<Row>(label);
    size_t n = 0;
    while (n < kEntries && nodes[n] != kNone) ++n;
    return {nodes, nodes + n};
  }
  // Makes a node an entry, while there are fewer than kEntries.
  bool enter(Label label, Row node) {
    Row* nodes = entries_->as<Row>(label);
    for (size_t i = 0; i < kEntries; ++i) {
      if (nodes[i] == node) return true;
      if (nodes[i] != kNone) continue;
      nodes[i] = node;
      return true;
    }
    return false;
  }
  bool borrowed() const { return entries_->borrowed(); }

 private:
  std::shared_ptr<Table> of_node_, ends_, members_, entries_;
};

// What a walk among some nodes may meet: those with a bit, or those with a label.
struct Among {
  const uint64_t* bits = nullptr;
  size_t n_bits = 0;
  const Labels* labels = nullptr;
  Labels::Label label = 0;

  explicit operator bool() const { return bits || labels; }
  bool has(Row node) const {
    return labels ? labels->has(node, label) : node < n_bits && (bits[node / 64] >> (node % 64) & 1);
  }
};

}  // namespace nearly::graph
