// Codes of vectors that went through a map first: any codes, after any map.
//
// Squared distances: where a map leaves part of a vector out, the codes get one more coordinate with its length, and queries
// 0 in its place, so that distances stay right on average. Inner products: <query, x> is about <query, center> plus the
// product of the query's image (without offset) with x's.
#pragma once
#include <memory>
#include <vector>

#include "quant/coded.hpp"
#include "quant/form.hpp"
#include "quant/map.hpp"

namespace nearly::quant {

class Mapped final : public Coded {
 public:
  // `codes` are of map.outputs() floats and one more if `rest`, and are decoded to as many; they compare by squared distance,
  // or by product if the form says so. `center`: of the map, form.input_dim() floats: a vector whose image is 0.
  Mapped(Form form, std::shared_ptr<const Map> map, bool rest, std::vector<float> center, std::shared_ptr<Coded> codes);

  void fill(size_t first, const float* vectors, size_t n) override;
  void decode(Row row, float* out) const override { codes_->decode(row, out); }  // the image

  size_t prepared_bytes() const override { return kHeader + codes_->prepared_bytes(); }
  void prepare(const void* query, void* prepared) const override;
  void prepare_row(Row row, void* prepared) const override;
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override;
  void score_range(const void* prepared, Row first, size_t n, float* out) const override;
  void prefetch(const Row* rows, size_t n) const override { codes_->prefetch(rows, n); }

 private:
  static constexpr size_t kHeader = 64;  // a constant that is added to all scores, in a line of its own

  Form form_;
  std::shared_ptr<const Map> map_;
  bool rest_;
  std::vector<float> center_, shift_;  // shift: the center's image without offset
  float center_square_ = 0;
  std::shared_ptr<Coded> codes_;
};

}  // namespace nearly::quant
