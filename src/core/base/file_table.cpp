#include "base/file_table.hpp"

#include <vector>

#include "base/os.hpp"

namespace nearly {

FileTable::FileTable(int file, bool writable, uint64_t offset, size_t stride, size_t rows)
    : file_(file), writable_(writable), owner_(os::process()), offset_(offset), stride_(stride), rows_(rows) {}

FileTable::~FileTable() { os::close_file(file_); }

bool FileTable::borrowed() const { return !writable_ || owner_ != os::process(); }

void FileTable::grow(size_t rows) {
  if (rows <= rows_) return;
  os::set_length(file_, at(rows));
  rows_ = rows;
}

void FileTable::write(size_t first, const void* from, size_t n) { os::write_at(file_, from, n * stride_, at(first)); }

void FileTable::read(size_t first, size_t n, void* to) const { os::read_at(file_, to, n * stride_, at(first)); }

void FileTable::gather(const Row* rows, size_t n, void* to) const {
  auto* out = static_cast<uint8_t*>(to);
  struct Run { size_t first, n; };  // rows side by side are read in one go
  std::vector<Run> missing;
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && rows[end] == rows[end - 1] + 1;) ++end;
    if (os::read_ready(file_, out + i * stride_, (end - i) * stride_, at(rows[i]))) continue;
    os::ask_for(file_, (end - i) * stride_, at(rows[i]));
    missing.push_back({i, end - i});
  }
  for (const Run& run : missing) os::read_at(file_, out + run.first * stride_, run.n * stride_, at(rows[run.first]));
}

}  // namespace nearly
