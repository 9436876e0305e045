// RaBitQ: unbiased estimates with a bound, from 1 to 8 bits a dimension (Gao & Long, SIGMOD 2024; Gao et al., SIGMOD 2025).
//
// A vector's residual r about the center is rotated at random and coded as v = code - (2^bits - 1) / 2, an odd multiple of
// one half in each dimension, whose direction is as near to r's as it can be. <q, r> is estimated by |r|^2 / <r, v> <q, v>,
// which is right on average over rotations and off by more than |q| `error` in one case of twenty (epsilon 1.9, SIGMOD 2024,
// section 3.2: the estimate's error is nearly normal).
// A row is [add, scale, error | first scale, first error | leading bits | further bits]: up to 4 leading bits a dimension, which
// kernels take fastest, and what makes them 5 to 8. Leading bits alone give a first estimate, and where its bound tells that
// a row is beyond what is asked for, the rest of it is not read. (Signs alone as a first stage cost more than 4 bits at
// once: 19 + 34 against 8 ns for 768 dimensions by AVX2. They pay where 32 vectors are looked up together.)
#pragma once
#include <memory>
#include <vector>

#include "kernels/table.hpp"
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

class RaBitQ final : public Bounded {
 public:
  RaBitQ(RaBitQSpec spec, std::shared_ptr<Table> rows);
  static size_t row_bytes(const RaBitQSpec& spec);

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override;  // input_dim floats

  void widen(void* prepared, float times) const override;
  void lower(const void* prepared, Row first, size_t n, float bound, float* out) const override;
  void errors(const void* prepared, const Row* rows, size_t n, float* out) const override;

  size_t prepared_bytes() const override;
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;

 private:
  struct Factors;
  struct Query;
  const Factors& factors(const uint8_t* row) const { return *reinterpret_cast<const Factors*>(row); }
  void encode(const float* residual, double square, double with_center, uint8_t* row) const;
  double decode_codes(const uint8_t* row, int16_t* v) const;
  double nearest_length(const uint8_t* row, double square) const;
  void digits(const int16_t* whole, bool fine, float step, float norm, float constant, Query* out) const;
  void score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, float* out) const;

  void score_further(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, const int32_t* lead,
                     float* out) const;

  RaBitQSpec spec_;
  size_t size_, units_;     // dimensions after the rotation; 64 of them each
  int lead_bits_, further_bits_;
  size_t lead_, further_;   // where these begin in a row
  std::vector<kernels::Grid> grids_, first_grids_;  // of all bits; of leading ones, by the scale of all
  float center_square_;
};

}  // namespace nearly::quant
