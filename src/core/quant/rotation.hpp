// A random rotation in O(n log n), and its inverse: see kernels/body/rotate.inl.hpp. Vectors are padded with zeros to a
// multiple of 64, and keep norms and products but for rounding. The same bits on every target.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nearly::quant {

class Rotation {
 public:
  static size_t padded(size_t dim) { return (dim + 63) / 64 * 64; }
  static size_t n_words(size_t dim) { return padded(dim) / 16; }
  // The random bits of a rotation, n_words(dim) of them.
  static std::vector<uint64_t> draw(size_t dim, uint64_t seed);

  Rotation() = default;
  // `signs`: n_words(dim) words.
  Rotation(size_t dim, std::vector<uint64_t> signs) : dim_(dim), signs_(std::move(signs)) {}

  size_t dim() const { return dim_; }
  size_t size() const { return padded(dim_); }  // floats that a rotated vector has
  const std::vector<uint64_t>& signs() const { return signs_; }

  // `x`: size() floats, those from dim() on zero.
  void rotate(float* x) const;
  // dim() floats to size().
  void apply(const float* x, float* out) const;
  // size() floats to dim(): the inverse. For decoding; not made for speed.
  void invert(const float* x, float* out) const;

 private:
  size_t dim_ = 0;
  std::vector<uint64_t> signs_;
};

}  // namespace nearly::quant
