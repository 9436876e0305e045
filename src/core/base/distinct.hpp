// Which vectors are equal, byte for byte: one node per distinct vector.
#pragma once
#include <cstdint>
#include <vector>

#include "base/table.hpp"

namespace nearly {

// A hash set of the first `bytes` bytes of the rows of a table, by row number.
class Distinct {
 public:
  Distinct(const Table* rows, size_t bytes) : rows_(rows), bytes_(bytes) {}
  // The row equal to `vector`, or kNone.
  Row find(const uint8_t* vector) const;
  // Row `row` of the table, not equal to one that is in already.
  void insert(Row row);
  void erase(Row row);
  void rebind(const Table* rows) { rows_ = rows; }

 private:
  size_t slot_of(const uint8_t* vector) const;
  void grow();

  const Table* rows_;
  size_t bytes_, used_ = 0;
  std::vector<Row> slots_;  // open addressing, a power of two
};

}  // namespace nearly
