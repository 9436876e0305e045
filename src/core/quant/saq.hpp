// Segmented codes: principal components cut into segments, each with as many bits a dimension as its variance deserves
// (SAQ: arXiv 2509.12086, sections 3 and 4), from 1 to 12; what gets none is left out.
//
// A vector's residual about the center is projected, and each segment rotated at random, so that all its dimensions vary
// alike. Segments have steps in fixed proportions, which follow from their variances, and a vector has one step for all:
// with factors of its own for each segment, as in the paper, it loses 8 % less at 2 bits, but these take bits from which the
// codes gain 25 % (CVE MiniLM 384). Codes of a step are whole numbers, the step is fitted to the codes, and in turns:
// neither can make the angle between vector and code wider (the paper's code adjustment, all dimensions at once).
// Estimates are RaBitQ's: with u the code, each segment of it lengthened to be right on average, <q, r> is about
// |r|^2 / <r, u> <q, u>, and off by more than its bound in one case of twenty.
//
// A row is [add, scale, error, rest, tail | first scale, first error | leading bits | further bits]: up to 4 leading bits of
// each segment, then what makes some 5 to 12. It is read in three stages, and left when it is beyond what is asked for:
// leading bits of the first segments, of which most of the variance is, with the shortest distance that the rest can have
// by the triangle inequality; all leading bits; further bits. (The paper bounds the rest by its variance. But vectors near
// the query are near it in the rest, too: four standard deviations lose one in five true neighbors on CVE.)
#pragma once
#include <memory>
#include <vector>

#include "kernels/block.hpp"
#include "quant/coded.hpp"
#include "quant/form.hpp"
#include "quant/rotation.hpp"
#include "quant/scale.hpp"

namespace nearly::quant {

struct Segment {
  size_t length = 0;  // dimensions, a multiple of 64 but for the last segment
  int bits = 0;
  float variance = 0;  // of a dimension; only proportions count
  Rotation rotation;
};

struct SaqSpec : Form {
  float epsilon = 1.9f;       // half-width of bounds, in standard deviations of the estimate
  int rounds = 6;             // of adjusting codes
  std::vector<float> center;  // input_dim
  std::vector<float> axes;    // as many orthonormal rows of input_dim as segments have dimensions
  std::vector<Segment> segments;
};

class Saq final : public Bounded {
 public:
  static constexpr size_t kSegments = 8;  // at most

  Saq(SaqSpec spec, std::shared_ptr<Table> rows);
  static size_t row_bytes(const std::vector<Segment>& segments);

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override;  // principal components, those that are coded

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
  struct Left;
  struct Part {  // a segment, as rows hold it
    size_t first, size, units;  // dimensions after the rotation, and 64 of them each
    int bits, lead, further;
    size_t lead_at, further_at;  // where its bits begin in a row
    float step;                  // of its codes, for a vector whose coded part has unit length
    float gain, lead_gain;       // by which codes, and their leading bits, are too short on average
    float share, first_share;    // of the squared error, by all bits and by leading ones
  };
  const Factors& factors(const uint8_t* row) const { return *reinterpret_cast<const Factors*>(row); }
  void project(const float* x, const double* squares, size_t n, int32_t* z, double* steps) const;
  void encode(const int32_t* z, double step, float add, double square, uint8_t* row) const;
  void measure(const Fit& gained, double norm, float* row_scale, float* error) const;
  void unpack(const uint8_t* row, float* z) const;
  void digits(float* z, double left_out, float constant, Query* out) const;
  void add_leading(const Query& query, const Part& part, size_t p, const uint8_t* base, Left* left) const;
  void add_further(const Query& query, const Part& part, size_t p, const uint8_t* base, Left* left) const;
  template <bool kFurther>
  void score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, bool lowest,
                   float* out) const;
  void score_rows(const Query& query, const uint8_t* base, const Row* rows, size_t n, float bound, bool lowest,
                  float* out) const;

  SaqSpec spec_;
  kernels::PackedWhole axes_;
  std::vector<Part> parts_;
  // Of each unit: of its codes, of these lengthened to be right on average, and of leading bits likewise, by the same scale.
  std::vector<kernels::Grid> grids_, gained_, first_gained_;
  size_t size_ = 0;     // dimensions after rotations
  size_t coded_ = 0;    // before
  size_t head_ = 0;     // segments of the first stage
  bool further_ = false;
  float center_square_;
};

}  // namespace nearly::quant
