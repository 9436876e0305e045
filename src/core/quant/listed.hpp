// Codes of vectors in inverted lists: what a vector is beyond the center of its list, by 16 codewords for each part of its
// image (product quantization of residuals: Jégou et al., TPAMI 2011, section IV), 32 slots in a block.
//
// With x = c + r, the image y = M r and its codewords u, <q, r> is about scale * <M q, u>, where scale = |r|^2 / <y, u> makes
// the estimate right on average along r (Gao & Long, SIGMOD 2024, theorem 3.2, for codewords that were learned). Then
//   |q - x|^2 = |q - c|^2 + |r|^2 + 2 <c - m, r> - 2 <q - m, r>,   -<q, x> = -<q, c> - <q, r>,
// and what does not depend on the query is one number a slot; m is the mean of all, so that tables hold small numbers. So
// one set of tables serves all lists, and the error grows with |q - c| only: both last products are estimated by the code.
// The distance from c is that by which lists are chosen, of images as bytes: its error is small beside that of codes.
// A block is the codes as kernels::Table::fastscan has them, 32 scales and 32 numbers to add.
#pragma once
#include <memory>
#include <vector>

#include "base/metric.hpp"
#include "base/scorer.hpp"
#include "kernels/block.hpp"
#include "quant/form.hpp"

namespace nearly::quant {

struct ListedSpec : Form {
  size_t dims = 0;                  // of the image
  size_t books = 0;                 // at most kernels::kLookups; they divide the image evenly
  std::vector<int8_t> matrix;       // empty, or in the layout of kernels::Table::project
  std::vector<float> matrix_scale;  // dims, with a matrix
  std::vector<float> mean;          // dims: the image of m
  std::vector<float> codewords;     // books x 16 x width(), padded with zeros

  size_t first(size_t book) const { return book * dims / books; }
  size_t count(size_t book) const { return first(book + 1) - first(book); }
  size_t width() const { return (dims + books - 1) / books; }
  size_t groups() const { return (books + 3) / 4 * 4; }
  size_t block_bytes() const { return groups() * 16 + 2 * ListScorer::kUnit * sizeof(float); }
  size_t padded_input() const { return (dim + 1) / 2 * 2; }
  size_t padded_dims() const { return (dims + 15) / 16 * 16; }
};

class Listed final : public ListScorer {
 public:
  // centers: rows of dim floats, in the metric's form.
  Listed(ListedSpec spec, std::shared_ptr<Table> centers, std::shared_ptr<Table> blocks);

  const ListedSpec& spec() const { return spec_; }
  const std::shared_ptr<Table>& blocks() const { return blocks_; }
  // Codes n vectors (of unit length under cosine) into slots; of a block's slots one thread at a time writes. A slot's code
  // depends on its vector and its list alone.
  void fill(const float* vectors, const uint32_t* slots, const uint32_t* lists, size_t n);
  // out[i] = distance of a slot that is in lists[i], by its code.
  void score(const void* prepared, const uint32_t* slots, const uint32_t* lists, size_t n, float* out) const;

  size_t n_slots() const override { return blocks_->rows() * kUnit; }
  size_t n_lists() const override { return centers_->rows(); }
  size_t n_bytes() const override { return blocks_->n_bytes(); }
  size_t query_bytes() const override { return spec_.dim * 4; }
  size_t prepared_bytes() const override;
  void prepare(const void* query, void* prepared) const override;
  void centers(const void* prepared, size_t first, size_t n, float* out) const override;
  size_t scan(const void* prepared, float base, Row first, size_t n, float bound, int64_t* out) const override;
  void prefetch(Row first, size_t n) const override;

 private:
  struct Query;
  void code_centers();
  void project(const float* input, float* out) const;
  void images(const float* rows, size_t n, float* out) const;
  float* factors(Row slot) const {  // scale; the number to add is kUnit floats on
    return reinterpret_cast<float*>(blocks_->row(slot / kUnit) + spec_.groups() * 16) + slot % kUnit;
  }
  uint8_t* place(Row slot, size_t book) const { return blocks_->row(slot / kUnit) + book * 16 + slot % 16; }
  void put(Row slot, size_t book, uint32_t code);
  uint32_t code(Row slot, size_t book) const { return *place(slot, book) >> (slot % kUnit / 16 * 4) & 15; }

  ListedSpec spec_;
  std::shared_ptr<Table> centers_, blocks_;
  std::vector<float> turned_;              // codewords as kernels::Table::lookups reads them
  std::vector<kernels::Centers> books_;
  std::unique_ptr<kernels::Packed> encoder_;  // the matrix in panels
  // Images of centers about their mean as bytes, as kernels::Table::codes8 has them: step * (code - 127.5).
  std::vector<float> middle_;
  float step_ = 0;
  std::unique_ptr<Table> center_codes_;
};

}  // namespace nearly::quant
