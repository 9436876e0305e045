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

namespace {

constexpr size_t kTileRows = 16, kTileBytes = 64;  // of a row
// Dimensions from which on columns are tiles: all code beside these runs at a lower clock (a fifth, Xeon), which codes of 64
// dimensions lose 8 % by and those of 128 nothing.
constexpr size_t kTiled = 128;

}  // namespace

PackedWhole::PackedWhole(const int16_t* columns, size_t m, size_t dim) : table_(&active()), dim_(even(dim)) {
  const size_t width = table_->panel, blocks = (dim_ + kTileBytes - 1) / kTileBytes;
  panels_ = (m + width - 1) / width;
  data_.assign(panels_ * width * dim_, 0);
  for (size_t c = 0; c < m; ++c) {
    int16_t* out = data_.data() + c / width * width * dim_ + c % width * 2;
    for (size_t j = 0; j < dim_; j += 2, out += 2 * width) out[0] = columns[c * dim_ + j], out[1] = columns[c * dim_ + j + 1];
  }
  if (dim_ < kTiled || !table_->tile_rows || !tiles_granted()) return;
  tiles_.assign(panels_ * width * blocks * 2 * kTileBytes, 0);
  for (size_t c = 0; c < m; ++c)
    for (size_t j = 0; j < dim_; ++j) {
      const size_t block = (c / kTileRows * blocks + j / kTileBytes) * 2, four = j % kTileBytes / 4;
      uint8_t* out = tiles_.data() + (block * kTileRows + four) * kTileBytes + c % kTileRows * 4 + j % 4;
      out[0] = static_cast<uint8_t>(columns[c * dim_ + j] >> 8);
      out[kTileRows * kTileBytes] = static_cast<uint8_t>(columns[c * dim_ + j]);
    }
}

void PackedWhole::take(const int16_t* rows, size_t n, Rows* out) const {
  out->data = rows;
  out->n = n;
  if (tiles_.empty()) return;
  const size_t groups = n / kTileRows, blocks = (dim_ + kTileBytes - 1) / kTileBytes;
  out->tiles.resize(groups * kTileRows * blocks * 2 * kTileBytes);
  table_->tile_rows(rows, dim_, groups, dim_, out->tiles.data());
}

void PackedWhole::multiply(const Rows& rows, size_t first, size_t panels, int32_t* out, size_t stride) const {
  size_t done = 0;
  if (!tiles_.empty() && rows.n >= kTileRows) {
    const size_t groups = rows.n / kTileRows, tiles = width() / kTileRows, bytes = tiles_.size() / panels_;
    table_->tile_products(rows.tiles.data(), groups, tiles_.data() + first * bytes, panels * tiles,
                          bytes / (width() * 2 * kTileBytes), out, stride);
    done = groups * kTileRows;
  }
  for (size_t p = first; p < first + panels; ++p, out += width())
    table_->whole_products(rows.data + done * dim_, dim_, rows.n - done, data_.data() + p * width() * dim_, dim_,
                           out + done * stride, stride);
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
