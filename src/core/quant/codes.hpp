// Scalar codes for traversal: an optional projection, then 8 or 4 bits a dimension and one float beside them.
//
// A row is [codes | zero padding | header]; its size is a multiple of 32 bytes and the query is zero over padding and
// header, so one kernel call over whole rows gives sum q_j c_j. With z the query and u the decoded row, both about the
// center of the codes, |z - u|^2 = |z|^2 + |u|^2 - 2 <z, u>; the header holds |u|^2 plus the energy that the
// projection left out, the prepared query holds the rest.
// Where products are compared (form.hpp) the distance is -<z, u> less what is the same for all rows, and nothing needs to
// be remembered of a row.
// Scale "vector" is LVQ: every row has its own step and offset (Aguerrebere et al., PVLDB 2023, section 3).
#pragma once
#include <memory>
#include <vector>

#include "base/metric.hpp"
#include "kernels/block.hpp"
#include "quant/coded.hpp"
#include "quant/form.hpp"

namespace nearly::quant {

enum class Scale : int { kShared = 0, kVector };  // shared: steps by dimension (all equal when global)

struct CodeSpec : Form {
  size_t dims = 0;         // dimensions that are coded
  int bits = 8;            // 8 or 4
  Scale scale = Scale::kShared;
  std::vector<float> center, step;  // dims each; step unused under Scale::kVector
  std::vector<int8_t> matrix;  // empty, or the projection in the layout of kernels::Table::project
  std::vector<float> matrix_scale, offset;  // dims each: projected = matrix_scale * integer - offset
  std::vector<float> mean;  // input_dim, with a matrix: what the offset is the image of
  size_t padded_input() const { return (input_dim() + 1) / 2 * 2; }
  size_t padded_dims() const { return (dims + 15) / 16 * 16; }
};

class Codes final : public Coded, public PanelScorer {
 public:
  Codes(CodeSpec spec, std::shared_ptr<Table> rows);
  static size_t row_bytes(const CodeSpec& spec);

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override;  // in the projected space

  size_t prepared_bytes() const override;
  void prepare(const void* query, void* prepared) const override { prepare_many(query, 0, 1, prepared, 0); }
  void prepare_many(const void* queries, size_t query_stride, size_t n, void* prepared, size_t stride) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;

  // Of 8 bits by shared steps.
  size_t panel_width(const kernels::Table& by) const override;
  size_t panel_bytes(const kernels::Table& by) const override;
  void pack(const kernels::Table& by, const void* const* prepared, size_t n, void* panel) const override;
  void score_panel(const kernels::Table& by, const void* panel, const float* bounds, const Row* rows, size_t n, float* tile,
                   uint32_t* near) const override;

 private:
  struct Query;
  struct Panel;
  void quantize(const float* z, Query* out) const;
  void quantize_for_product(float* z, float with_mean, Query* out) const;
  void prepare_from_codes(const uint8_t* row, Query* out) const;
  // Of n inputs, one after another.
  void project(const float* inputs, size_t n, float* out) const;
  void score_block(const Query& query, const uint8_t* base, const Row* rows, size_t n, float* out) const;
  void encode(const float* z, float left_out, uint8_t* row) const;
  const float* header(const uint8_t* row) const;

  CodeSpec spec_;
  std::unique_ptr<kernels::Packed> encoder_;  // the projection in panels, for encoding many rows
  bool uniform_ = false;           // one step for all dimensions
  float mean_square_ = 0;          // of the projection's mean
};

}  // namespace nearly::quant
