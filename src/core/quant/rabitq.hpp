// RaBitQ: unbiased estimates with a bound, from 1 to 8 bits a dimension (Gao & Long, SIGMOD 2024; Gao et al., SIGMOD 2025).
//
// A vector's residual r about the center is rotated at random and coded as v = code - (2^bits - 1) / 2, an odd multiple of
// one half in each dimension, whose direction is as near to r's as it can be. <q, r> is estimated by |r|^2 / <r, v> <q, v>,
// which is right on average over rotations and off by more than |q| `error` in one case of twenty (epsilon 1.9, SIGMOD 2024,
// section 3.2: the estimate's error is nearly normal).
// A row is [add, scale, error | first scale, first error | signs | further bits], with what is in the middle only where there
// are further bits. Signs alone give a first estimate, and where its bound tells that a row is beyond what is asked for,
// the rest of it is not read.
#pragma once
#include <memory>
#include <vector>

#include "quant/coded.hpp"
#include "quant/form.hpp"
#include "quant/rotation.hpp"

namespace nearly::quant {

struct RaBitQSpec : Form {
  int bits = 1;
  float epsilon = 1.9f;       // half-width of bounds, in standard deviations of the estimate
  std::vector<float> center;  // input_dim
  Rotation rotation;          // of input_dim floats
};

class RaBitQ final : public Coded {
 public:
  RaBitQ(RaBitQSpec spec, std::shared_ptr<Table> rows);
  static size_t row_bytes(const RaBitQSpec& spec);

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override;  // input_dim floats
  const RaBitQSpec& spec() const { return spec_; }

  // Half-widths of the bounds around scores.
  void errors(const void* prepared, const Row* rows, size_t n, float* out) const;

  size_t prepared_bytes() const override;
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;

 private:
  struct Factors;
  struct Query;
  const Factors& factors(const uint8_t* row) const { return *reinterpret_cast<const Factors*>(row); }
  struct Fit {
    float scale, product, square;  // <a, |v|> and |v|^2 of the codes of a scale
  };
  void encode(const float* residual, double with_center, uint8_t* row) const;
  Fit choose_scale(const float* a) const;
  void pack(const float* residual, const float* a, float scale, uint8_t* row) const;
  void decode_codes(const uint8_t* row, float* v) const;
  float shrunk(const uint8_t* row, float* v) const;
  void quantize(const float* z, float constant, Query* out) const;
  void score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, float* out) const;

  RaBitQSpec spec_;
  size_t size_, units_;     // dimensions after the rotation; 64 of them each
  size_t signs_, further_;  // where these begin in a row
  float center_square_;
};

}  // namespace nearly::quant
