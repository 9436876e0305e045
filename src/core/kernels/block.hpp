// Products of many rows with many columns, cut into panels for the products kernel of the active target.
#pragma once
#include <cstddef>
#include <vector>

#include "base/lines.hpp"
#include "base/threads.hpp"
#include "kernels/table.hpp"

namespace nearly::kernels {

// Columns side by side, as Table::products reads them. Remembers the target whose panels it holds.
class Packed {
 public:
  // m columns of dim floats; column c starts at columns + c * dim.
  Packed(const float* columns, size_t m, size_t dim);

  size_t panels() const { return panels_; }
  size_t width() const { return table_->panel; }
  // tile[r * width() + c] = <row r, column p * width() + c>; columns past m give 0.
  void multiply(const float* rows, size_t n, size_t p, float* tile) const {
    table_->products(rows, dim_, n, data_.data() + p * width() * dim_, dim_, tile, width());
  }

 protected:
  const Table* table_;
  size_t dim_, panels_;
  std::vector<float> data_;
};

// The same for whole numbers of 16 bits. Rows and columns are `even(dim)` long: a zero behind an odd number of elements.
class PackedWhole {
 public:
  // n rows made ready for all panels. They stay where they are.
  struct Rows {
    const int16_t* data;
    size_t n;
    Lines<uint8_t> tiles;  // of all groups of 16 rows, on machines that multiply tiles
  };

  PackedWhole(const int16_t* columns, size_t m, size_t dim);
  static size_t even(size_t dim) { return (dim + 1) / 2 * 2; }

  size_t panels() const { return panels_; }
  size_t width() const { return table_->panel; }
  void take(const int16_t* rows, size_t n, Rows* out) const;
  // Products with the columns of some panels beside each other, `stride` from row to row; none may leave 32 bits.
  void multiply(const Rows& rows, size_t first, size_t panels, int32_t* out, size_t stride) const;
  // Table::reaching of the target that the panels are for.
  size_t reaching(const int32_t* tile, size_t n, const float* row_floor, const float* row_scale, const float* floor,
                  const float* scale, float allowance, Reached* out) const {
    return table_->reaching(tile, n, row_floor, row_scale, floor, scale, allowance, out);
  }

 private:
  const Table* table_;
  size_t dim_, panels_;
  Lines<int16_t> data_;
  Lines<uint8_t> tiles_;  // the same columns; empty where there are none
};

// Centers, of which the nearest to rows are asked for.
class Centers : public Packed {
 public:
  Centers(const float* centers, size_t m, size_t dim);
  // label[i] = the center nearest to row i (the first of equals), value[i] = <row, center> - |center|^2 / 2.
  void nearest(const float* rows, size_t row_stride, size_t n, uint32_t* label, float* value) const {
    table_->nearest(rows, row_stride, n, data_.data(), halves_.data(), dim_, panels_, label, value);
  }
  float half(size_t c) const { return halves_[c]; }  // |c|^2 / 2

 private:
  std::vector<float> halves_;
};

// out[i * m + c] = <row i, column c>. Each product is one sum in order, whatever the threads.
void multiply(const float* rows, size_t n, const float* columns, size_t m, size_t dim, float* out, size_t threads,
              const Poll& poll);

}  // namespace nearly::kernels
