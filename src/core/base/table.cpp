#include "base/table.hpp"

#include <algorithm>
#include <new>

#include "base/os.hpp"

namespace nearly {

Table::Table(size_t stride, size_t rows, size_t capacity) : stride_(stride) {
  const size_t page = os::page_size();
  const auto rounded = [page](size_t bytes) { return std::max(page, (bytes + page - 1) / page * page); };
  // A refused reservation is tried smaller: no growth in place is better than no table.
  for (size_t rows_wanted = std::max(rows, capacity);; rows_wanted = std::max(rows, rows_wanted / 2)) {
    reserved_ = rounded(rows_wanted * stride + 64);  // 64: kernels may read one vector past the end
    data_ = static_cast<uint8_t*>(os::reserve(reserved_));
    if (data_ || rows_wanted == rows) break;
  }
  if (!data_) throw std::bad_alloc();
  if (!grow(rows)) {
    os::release(data_, reserved_);
    throw std::bad_alloc();
  }
}

Table::Table(const void* data, size_t stride, size_t rows)
    : data_(static_cast<uint8_t*>(const_cast<void*>(data))), stride_(stride), rows_(rows) {}

Table::~Table() {
  if (reserved_) os::release(data_, reserved_);
}

bool Table::grow(size_t rows) {
  if (rows <= rows_) return true;
  const size_t bytes = rows * stride_ + 64;
  if (bytes > reserved_) return false;
  if (bytes > committed_) {
    // Ahead by an eighth: one system call for many appends.
    const size_t ahead = std::min(reserved_, std::max(bytes, committed_ + committed_ / 8));
    if (!os::commit(data_, ahead, committed_)) throw std::bad_alloc();
    committed_ = ahead;
  }
  rows_ = rows;
  return true;
}

}  // namespace nearly
