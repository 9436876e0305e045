#include "base/distinct.hpp"

#include <algorithm>
#include <cstring>

namespace nearly {
namespace {

constexpr Row kErased = 0xFFFFFFFEu;

uint64_t hash(const uint8_t* p, size_t n) {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ n;
  const auto mix = [&h](uint64_t word) {
    h = (h ^ word) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
  };
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    mix(word);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, p, n);
  mix(rest);
  return h;
}

}  // namespace

// The slot that holds an equal row, or the first empty one.
size_t Distinct::slot_of(const uint8_t* vector) const {
  const size_t mask = slots_.size() - 1;
  size_t at = hash(vector, bytes_) & mask;
  while (slots_[at] != kNone &&
         (slots_[at] == kErased || std::memcmp(rows_->row(slots_[at]), vector, bytes_) != 0))
    at = (at + 1) & mask;
  return at;
}

Row Distinct::find(const uint8_t* vector) const { return slots_.empty() ? kNone : slots_[slot_of(vector)]; }

void Distinct::insert(Row row) {
  if ((used_ + 1) * 2 > slots_.size()) grow();
  slots_[slot_of(rows_->row(row))] = row;
  ++used_;
}

void Distinct::erase(Row row) {
  if (slots_.empty()) return;
  const size_t at = slot_of(rows_->row(row));
  if (slots_[at] == row) slots_[at] = kErased;
}

// A table for the rows that are in, four places each: erased ones leave marks that only a new table forgets.
void Distinct::grow() {
  const auto n = static_cast<size_t>(std::count_if(slots_.begin(), slots_.end(), [](Row row) { return row < kErased; }));
  size_t size = 64;
  while (size < 4 * n) size *= 2;
  std::vector<Row> old(size, kNone);
  old.swap(slots_);
  used_ = 0;
  for (const Row row : old)
    if (row < kErased) {
      slots_[slot_of(rows_->row(row))] = row;
      ++used_;
    }
}

}  // namespace nearly
