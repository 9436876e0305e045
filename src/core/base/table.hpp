// A table of fixed-stride rows that never moves: readers keep their pointers while a writer appends.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nearly {

using Row = uint32_t;
constexpr Row kNone = 0xFFFFFFFFu;

class Table {
 public:
  // Owned and zero-filled. Address space for `capacity` rows is set aside; memory follows the rows.
  Table(size_t stride, size_t rows, size_t capacity);
  // Borrowed and read-only: somebody else keeps the bytes alive (a mapped file).
  Table(const void* data, size_t stride, size_t rows);
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  // False when the reservation is too small: the owner then copies into a larger table.
  bool grow(size_t rows);
  void shrink(size_t rows) { rows_ = rows < rows_ ? rows : rows_; }

  const uint8_t* row(size_t i) const { return data_ + i * stride_; }
  uint8_t* row(size_t i) { return data_ + i * stride_; }
  template <typename T> const T* as(size_t i = 0) const { return reinterpret_cast<const T*>(row(i)); }
  template <typename T> T* as(size_t i = 0) { return reinterpret_cast<T*>(row(i)); }
  const uint8_t* data() const { return data_; }
  size_t stride() const { return stride_; }
  size_t rows() const { return rows_; }
  size_t capacity() const { return stride_ ? reserved_ / stride_ : ~size_t{0}; }
  bool borrowed() const { return reserved_ == 0; }
  size_t n_bytes() const { return rows_ * stride_; }

 private:
  uint8_t* data_ = nullptr;
  size_t stride_, rows_ = 0, reserved_ = 0, committed_ = 0;
};

}  // namespace nearly
