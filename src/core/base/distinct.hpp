// Which vectors are equal, byte for byte: one node per distinct vector.
#pragma once
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/table.hpp"

namespace nearly {

// A hash set of the first `bytes` bytes of rows, by row number. A row is looked at only where its hash is the one sought, so
// rows may lie in a file.
class Distinct {
 public:
  using Look = std::function<const uint8_t*(Row)>;  // the bytes of a row, until the next call

  Distinct(Look look, size_t bytes) : look_(std::move(look)), bytes_(bytes) {}
  // The row equal to `vector`, or kNone.
  Row find(const uint8_t* vector) const;
  // Row `row`, which holds `vector`, not equal to one that is in already.
  void insert(Row row, const uint8_t* vector);
  void erase(Row row);

 private:
  struct Slot {
    Row row = kNone;
    uint32_t hash = 0;
  };
  size_t slot_of(const uint8_t* vector, uint32_t hash) const;
  void grow();

  Look look_;
  size_t bytes_, used_ = 0;
  std::vector<Slot> slots_;  // open addressing, a power of two
};

}  // namespace nearly
