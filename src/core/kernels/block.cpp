#include "kernels/block.hpp"

#include <algorithm>
#include <limits>

namespace nearly::kernels {

Packed::Packed(const float* columns, size_t m, size_t dim) : table_(&active()), dim_(dim) {
  const size_t width = table_->panel;
  panels_ = (m + width - 1) / width;
  data_.assign(panels_ * width * dim, 0.0f);
  for (size_t c = 0; c < m; ++c)
    for (size_t j = 0; j < dim; ++j) data_[(c / width * dim + j) * width + c % width] = columns[c * dim + j];
}

PackedWhole::PackedWhole(const int16_t* columns, size_t m, size_t dim) : table_(&active()), dim_(even(dim)) {
  const size_t width = table_->panel;
  panels_ = (m + width - 1) / width;
  data_.assign(panels_ * width * dim_, 0);
  for (size_t c = 0; c < m; ++c) {
    int16_t* out = data_.data() + c / width * width * dim_ + c % width * 2;
    for (size_t j = 0; j < dim_; j += 2, out += 2 * width) out[0] = columns[c * dim_ + j], out[1] = columns[c * dim_ + j + 1];
  }
}

Centers::Centers(const float* centers, size_t m, size_t dim)
    : Packed(centers, m, dim), halves_(panels_ * width(), std::numeric_limits<float>::infinity()) {
  for (size_t c = 0; c < m; ++c) {
    double square = 0;
    for (size_t j = 0; j < dim; ++j) square += static_cast<double>(centers[c * dim + j]) * centers[c * dim + j];
    halves_[c] = static_cast<float>(square / 2);
  }
}

void multiply(const float* rows, size_t n, const float* columns, size_t m, size_t dim, float* out, size_t threads,
              const Poll& poll) {
  const Packed packed(columns, m, dim);
  constexpr size_t kBlock = 48;
  parallel_for((n + kBlock - 1) / kBlock, 1, threads, [&](size_t begin, size_t end) {
    const size_t width = packed.width();
    std::vector<float> tile(kBlock * width);
    for (size_t b = begin; b < end; ++b) {
      const size_t first = b * kBlock, block = std::min(kBlock, n - first);
      for (size_t p = 0; p < packed.panels(); ++p) {
        packed.multiply(rows + first * dim, block, p, tile.data());
        const size_t used = std::min(width, m - p * width);
        for (size_t r = 0; r < block; ++r)
          std::copy_n(tile.data() + r * width, used, out + (first + r) * m + p * width);
      }
    }
  }, poll);
}

}  // namespace nearly::kernels
