// What a vector goes through before it is coded, step by step: leading coordinates, unit length, an affine map, a random
// rotation. Each product is one sum in order, so a vector's image does not depend on those mapped beside it.
#pragma once
#include <memory>
#include <vector>

#include "kernels/block.hpp"
#include "quant/rotation.hpp"

namespace nearly::quant {

class Map {
 public:
  explicit Map(size_t inputs) : inputs_(inputs), outputs_(inputs) {}
  Map(const Map&) = delete;

  void add_leading(size_t n);  // at most outputs()
  void add_unit();             // zero stays zero
  // x becomes matrix x - offset; `matrix` holds offset.size() rows of outputs() floats. Products with a query want the
  // image of differences, without the offset.
  void add_affine(const float* matrix, std::vector<float> offset);
  void add_rotation(Rotation rotation);  // of outputs() floats

  size_t inputs() const { return inputs_; }
  size_t outputs() const { return outputs_; }
  // n vectors of inputs() floats to as many of outputs().
  void apply(const float* x, size_t n, bool with_offset, float* out) const;

 private:
  struct Step {
    enum class Kind { kLeading, kUnit, kAffine, kRotation } kind;
    size_t inputs, outputs;
    std::unique_ptr<kernels::Packed> matrix;
    std::vector<float> offset;
    Rotation rotation;
  };
  static void take(const Step& step, const float* x, size_t n, bool with_offset, float* out);

  size_t inputs_, outputs_;
  std::vector<Step> steps_;
};

}  // namespace nearly::quant
