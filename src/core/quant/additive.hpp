// Codes that name one codeword of each of several codebooks: a vector is about the center plus the sum of its codewords.
//
// Product quantization (Jégou et al., TPAMI 2011): each codebook has coordinates of its own. Residual quantization (Chen et
// al., Sensors 2010): each is of all coordinates, and codes what the books before it left.
// A query is compared with all codewords once; a distance is then a sum of lookups. Tables of 8-bit codes are floats. Tables
// of 4-bit codes are bytes, whose sums are whole numbers: row by row and by blocks of 32 (kernels::Table::fastscan) they are
// equal, on every target.
// A row is codes, |its residual|^2 as a float where squared distances need it (residual quantization), and padding.
#pragma once
#include <memory>
#include <vector>

#include "kernels/block.hpp"
#include "quant/coded.hpp"
#include "quant/form.hpp"

namespace nearly::quant {

struct AdditiveSpec : Form {
  int bits = 8;             // 8 or 4 for each codebook
  size_t books = 0;         // codebooks; those of a product divide the coordinates evenly
  bool residual = false;    // each codebook is of all coordinates
  size_t beam = 1;          // residual: partial codes that are kept while coding
  std::vector<float> center;     // input_dim
  std::vector<float> codewords;  // books x words() x width(), those of a product padded with zeros

  size_t words() const { return size_t{1} << bits; }
  size_t first(size_t book) const { return residual ? 0 : book * input_dim() / books; }  // coordinate
  size_t count(size_t book) const { return residual ? input_dim() : first(book + 1) - first(book); }
  size_t width() const { return residual ? input_dim() : (input_dim() + books - 1) / books; }
  bool remembers_square() const { return residual && !product(); }
};

class Additive final : public Coded {
 public:
  Additive(AdditiveSpec spec, std::shared_ptr<Table> rows);
  static size_t row_bytes(const AdditiveSpec& spec);

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override;  // input_dim floats

  size_t prepared_bytes() const override;
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;

 private:
  struct Query;
  size_t code(const uint8_t* row, size_t book) const {
    return spec_.bits == 8 ? row[book] : row[book / 2] >> (book % 2 * 4) & 15;
  }
  void put(uint8_t* row, size_t book, size_t code) const;
  const float* codeword(size_t book, size_t word) const {
    return spec_.codewords.data() + (book * spec_.words() + word) * spec_.width();
  }
  void code_product(const float* residuals, size_t n, uint8_t* rows) const;
  void code_residual(const float* residuals, size_t n, uint8_t* rows) const;
  void prepare_form(float* form, const uint8_t* row, void* prepared) const;
  void pair_up();
  void tables(const float* query, const uint8_t* row, float constant, void* prepared) const;
  void lookups(const float* query, float* out) const;
  void score_rows(const Query& query, const uint8_t* base, const Row* rows, size_t n, float* out) const;
  void sum_floats(const float* tables, const uint8_t* base, const Row* rows, size_t n, float* out) const;
  void sum_bytes(const Query& query, const uint8_t* base, const Row* rows, size_t n, float* out) const;

  AdditiveSpec spec_;
  size_t square_, code_bytes_;             // where a row's square stands; 4 bits: a multiple of 8
  std::vector<kernels::Centers> centers_;  // of each codebook
  std::vector<float> pairs_;               // books x words x words, 4-bit products: `lookups` of each codeword
};

}  // namespace nearly::quant
