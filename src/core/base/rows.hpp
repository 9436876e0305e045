// Rows and nodes: a node is one distinct vector, its rows hang on it in order of id. Navigators meet nodes, people rows.
#pragma once
#include <cstdint>
#include <memory>

#include "base/table.hpp"

namespace nearly {

// A bit a row; null lets everything pass. Rows that are newer than the bits do not pass.
struct Filter {
  const uint64_t* bits = nullptr;
  size_t n_bits = 0;
  bool passes(Row row) const { return !bits || (row < n_bits && (bits[row / 64] >> (row % 64) & 1)); }
};

// Written by one writer; readers may walk chains meanwhile: words are atomic and a row is linked after it is filled.
class Rows {
 public:
  Rows(std::shared_ptr<Table> ids, std::shared_ptr<Table> next, std::shared_ptr<Table> first, std::shared_ptr<Table> last)
      : ids_(std::move(ids)), next_(std::move(next)), first_(std::move(first)), last_(std::move(last)) {}

  int64_t id(Row row) const { return *ids_->as<int64_t>(row); }
  Row first(Row node) const { return __atomic_load_n(first_->as<Row>(node), __ATOMIC_ACQUIRE); }
  Row next(Row row) const { return __atomic_load_n(next_->as<Row>(row), __ATOMIC_ACQUIRE); }
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

 private:
  std::shared_ptr<Table> ids_, next_, first_, last_;
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
