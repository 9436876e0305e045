// Vectors as they came, in a file: what ranks where memory holds codes alone (two stages, as in CompactDS, arXiv 2507.01297).
#pragma once
#include "base/file_table.hpp"
#include "quant/plain.hpp"

namespace nearly::quant {

// Scores as Plain does, bit for bit: rows are read in blocks and compared in memory of the thread's own.
class Filed final : public Plain {
 public:
  Filed(std::shared_ptr<FileTable> file, kernels::Element element, Metric metric, size_t dim)
      : Plain(nullptr, element, metric, dim), file_(std::move(file)) {}

  void fill(size_t first, const void* vectors, size_t n) override;
  using Plain::decode;
  void decode(const Row* rows, size_t n, float* out) const override;
  const uint8_t* bytes(Row row, uint8_t* room) const override { return file_->gather(&row, 1, room), room; }
  bool borrowed() const override { return file_->borrowed(); }
  const std::shared_ptr<FileTable>& file() const { return file_; }

  size_t n_rows() const override { return file_->rows(); }
  size_t n_bytes() const override { return file_->n_bytes(); }
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;
  void prefetch(const Row*, size_t) const override {}  // `score` asks for what it lacks

 private:
  std::shared_ptr<FileTable> file_;
};

}  // namespace nearly::quant
