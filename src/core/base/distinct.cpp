#include "base/distinct.hpp"

#include <algorithm>
#include <cstring>

namespace nearly {
namespace {

constexpr Row kErased = 0xFFFFFFFEu;

uint32_t hash_of(const uint8_t* p, size_t n) {
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
  return static_cast<uint32_t>(h);
}

}  // namespace

// The slot that holds an equal row, or the first empty one.
size_t Distinct::slot_of(const uint8_t* vector, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  size_t at = hash & mask;
  for (; slots_[at].row != kNone; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.row != kErased && slot.hash == hash && std::memcmp(look_(slot.row), vector, bytes_) == 0) break;
  }
  return at;
}

Row Distinct::find(const uint8_t* vector) const {
  return slots_.empty() ? kNone : slots_[slot_of(vector, hash_of(vector, bytes_))].row;
}

void Distinct::insert(Row row, const uint8_t* vector) {
  if ((used_ + 1) * 3 > slots_.size() * 2) grow();
  const uint32_t hash = hash_of(vector, bytes_);
  slots_[slot_of(vector, hash)] = {row, hash};
  ++used_;
}

void Distinct::erase(Row row) {
  if (slots_.empty()) return;
  const uint8_t* held = look_(row);
  const std::vector<uint8_t> vector(held, held + bytes_);  // others are looked at meanwhile
  Slot& slot = slots_[slot_of(vector.data(), hash_of(vector.data(), bytes_))];
  if (slot.row == row) slot.row = kErased;
}

// A table for the rows that are in, twice to four times as many places: erased ones leave marks that only a new table forgets.
void Distinct::grow() {
  const auto n = static_cast<size_t>(
      std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.row < kErased; }));
  size_t size = 64;
  while (size < 2 * n + 2) size *= 2;
  std::vector<Slot> old(size);
  old.swap(slots_);
  used_ = 0;
  for (const Slot& slot : old) {
    if (slot.row >= kErased) continue;
    size_t at = slot.hash & (size - 1);
    while (slots_[at].row != kNone) at = (at + 1) & (size - 1);  // all are different
    slots_[at] = slot;
    ++used_;
  }
}

}  // namespace nearly
