// Rows and nodes: a node is one distinct vector, its rows hang on it in order of id. Navigators meet nodes, people rows.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/readers.hpp"
#include "base/table.hpp"

namespace nearly {

// A bit a row; null lets everything pass. Rows that are newer than the bits do not pass.
struct Filter {
  const uint64_t* bits = nullptr;
  size_t n_bits = 0;
  const std::vector<Row>* hidden = nullptr;  // ascending: rows that hang, but not for this reader
  bool passes(Row row) const {
    return (!bits || (row < n_bits && (bits[row / 64] >> (row % 64) & 1))) &&
           (!hidden || !std::binary_search(hidden->begin(), hidden->end(), row));
  }
};

// A row to hang on a node, or to take from it.
struct Link {
  Row row;
  int64_t id;
  Row node;
};

// Rows that come and rows that go, at one moment for all readers: the one at which the epoch moves on.
class Exchange {
 public:
  Exchange(std::vector<Link> come, std::vector<Link> go) : come(std::move(come)), go(std::move(go)) {
    for (const auto& [links, rows] : {std::pair{&this->come, &new_rows_}, std::pair{&this->go, &old_rows_}}) {
      for (const Link& link : *links) rows->push_back(link.row);
      std::sort(rows->begin(), rows->end());
    }
  }
  const std::vector<Link> come, go;
  std::atomic<uint64_t> last{~uint64_t{0}};  // epoch whose readers are the last to see what goes

  const std::vector<Row>* hidden(const Readers::Reading& reading) const {
    return reading.epoch() > last.load() ? &old_rows_ : &new_rows_;
  }

 private:
  std::vector<Row> new_rows_, old_rows_;
};

// Written by one writer; readers may walk chains meanwhile: words are atomic and a row is linked after it is filled. They
// count themselves, so that the writer knows when what it unlinked may be used again: a row that hangs when a reader looks
// keeps its id, and its node the vector, until that reader has ended.
class Rows {
 public:
  Rows(std::shared_ptr<Table> ids, std::shared_ptr<Table> next, std::shared_ptr<Table> first, std::shared_ptr<Table> last,
       std::shared_ptr<Readers> readers)
      : ids_(std::move(ids)), next_(std::move(next)), first_(std::move(first)), last_(std::move(last)),
        readers_(std::move(readers)) {}

  int64_t id(Row row) const { return *ids_->as<int64_t>(row); }
  Row first(Row node) const { return __atomic_load_n(first_->as<Row>(node), __ATOMIC_ACQUIRE); }
  Row next(Row row) const { return __atomic_load_n(next_->as<Row>(row), __ATOMIC_ACQUIRE); }
  // Whether rows hang on all of n nodes in a row; may say no where one of them is beyond 2^31.
  bool all_hold(Row node, size_t n) const {
    const Row* word = first_->as<Row>(node);
    Row any = 0;
    for (size_t i = 0; i < n; ++i) any |= __atomic_load_n(word + i, __ATOMIC_ACQUIRE);
    return !(any >> 31);
  }
  // A hint that a row is emitted soon.
  void prefetch(Row row) const {
    __builtin_prefetch(ids_->row(row));
    __builtin_prefetch(next_->row(row));
  }
  // First row of a node that passes, or kNone.
  Row first_passing(Row node, Filter filter) const {
    Row row = first(node);
    while (row != kNone && !filter.passes(row)) row = next(row);
    return row;
  }

  // Gives a row its id and hangs it on a node. Looks for its place from a row of that node with a smaller id, if one is
  // given.
  void link(Row row, int64_t id, Row node, Row from = kNone);
  // Many at once, those of a node in one walk along its chain where their ids ascend: a million rows may hang on one node.
  void link(const std::vector<Link>& links);
  void unlink(const std::vector<Link>& links);

  // An exchange in three steps; whoever reads meanwhile sees all that goes and nothing that comes, or the reverse. After
  // the first one each may be repeated.
  // 1. What comes hangs, hidden. Waits for readers who do not know of the exchange; if `poll` throws nothing has changed.
  void prepare(std::vector<Link> come, std::vector<Link> go, const Poll& poll);
  // 2. The moment: readers who begin now see what came. Waits for nobody. Or it is called off.
  void exchange();
  void call_off();
  // 3. Waits for those who began before, takes off what went.
  void settle();
  bool prepared() const { return !exchanges_.empty(); }
  bool exchanging() const { return exchange_.load() != nullptr; }

  const std::shared_ptr<Table>& ids() const { return ids_; }
  const std::shared_ptr<Table>& next_rows() const { return next_; }
  const std::shared_ptr<Table>& first_rows() const { return first_; }
  const std::shared_ptr<Table>& last_rows() const { return last_; }
  const std::shared_ptr<Readers>& readers() const { return readers_; }

  // Other tables took the place of these.
  void retire() { validity_.retire(*readers_); }
  // What a reader does first: returns the filter with which it sees the rows as they are at its beginning. Throws Retired
  // if these rows are, or if something was exchanged for rows on nodes beyond the n_nodes that it knows of.
  Filter begin(const Readers::Reading& reading, Filter filter, size_t n_nodes) const {
    validity_.check(reading);
    if (n_nodes < least_nodes_.load()) throw Retired();
    if (const Exchange* exchange = exchange_.load()) filter.hidden = exchange->hidden(reading);
    return filter;
  }

 private:
  std::shared_ptr<Table> ids_, next_, first_, last_;
  std::shared_ptr<Readers> readers_;
  Validity validity_;
  std::atomic<const Exchange*> exchange_{nullptr};  // the one under way: the last of these
  std::vector<std::unique_ptr<Exchange>> exchanges_;  // readers may still look at earlier ones
  std::atomic<size_t> least_nodes_{0};
};

// The nearest nodes met so far, emitted as rows: ascending by (distance, id).
struct Found {
  float distance;
  Row node;
  int64_t id;  // smallest passing id of the node
};
inline bool nearer(const Found& a, const Found& b) {
  return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
}

// Writes up to k rows of n sorted nodes; fills the rest with id -1 at infinity. Returns how many rows there were.
size_t emit(const Rows& rows, Filter filter, Found* found, size_t n, size_t k, int64_t* ids, float* distances);

}  // namespace nearly
