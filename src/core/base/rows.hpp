// Rows and nodes: a node is one distinct vector, its rows hang on it in order of id. Navigators meet nodes, people rows.
#pragma once
#include <cstdint>
#include <memory>

#include "base/readers.hpp"
#include "base/table.hpp"

namespace nearly {

// A bit a row; null lets everything pass. Rows that are newer than the bits do not pass.
struct Filter {
  const uint64_t* bits = nullptr;
  size_t n_bits = 0;
  bool passes(Row row) const { return !bits || (row < n_bits && (bits[row / 64] >> (row % 64) & 1)); }
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

  // Gives a row its id and hangs it on a node.
  void link(Row row, int64_t id, Row node);
  void unlink(Row row, Row node);

  const std::shared_ptr<Table>& ids() const { return ids_; }
  const std::shared_ptr<Table>& next_rows() const { return next_; }
  const std::shared_ptr<Table>& first_rows() const { return first_; }
  const std::shared_ptr<Table>& last_rows() const { return last_; }
  const std::shared_ptr<Readers>& readers() const { return readers_; }

  // Other tables took the place of these.
  void retire() { validity_.retire(*readers_); }
  void check(const Readers::Reading& reading) const { validity_.check(reading); }

 private:
  std::shared_ptr<Table> ids_, next_, first_, last_;
  std::shared_ptr<Readers> readers_;
  Validity validity_;
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
