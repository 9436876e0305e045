// A table of fixed-stride rows that lie in a file, of which nothing is kept in memory.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/table.hpp"

namespace nearly {

// Rows are read into memory of the reader's, never mapped: a file that another program shortens, or a drive that fails, is
// an exception of the search that met it, where a mapping would end the process.
class FileTable {
 public:
  // Takes over an open file. A writable one is this table's alone and grows; `rows` lie in it from `offset` on.
  FileTable(int file, bool writable, uint64_t offset, size_t stride, size_t rows);
  ~FileTable();
  FileTable(const FileTable&) = delete;
  FileTable& operator=(const FileTable&) = delete;

  void grow(size_t rows);  // by rows of zeros
  void write(size_t first, const void* from, size_t n);
  void read(size_t first, size_t n, void* to) const;
  // Rows one after the other: those that lie in memory first, then all others, for which the drive is asked at once.
  void gather(const Row* rows, size_t n, void* to) const;

  size_t stride() const { return stride_; }
  size_t rows() const { return rows_; }
  // Read-only: somebody else's file, or, after a fork, the other process's.
  bool borrowed() const;
  size_t n_bytes() const { return rows_ * stride_; }  // of the file

 private:
  uint64_t at(size_t row) const { return offset_ + uint64_t{row} * stride_; }

  int file_;
  bool writable_;
  long owner_;
  uint64_t offset_;
  size_t stride_, rows_;
};

}  // namespace nearly
