// Blocks of inner products: rows times one packed panel of columns, the heart of batches and of projections.
// Six rows by two vectors of columns fill the sixteen registers of AVX2; one sum per output runs over j in order, so
// an output's bits do not depend on its neighbors.

// Sums wait in `out` between blocks of kDepth, whose part of the panel stays in the first cache meanwhile.
constexpr size_t kDepth = 256;

template <size_t kRows>
inline void product_block(const float* rows, size_t row_stride, const float* packed, size_t depth, bool begun, float* out,
                          size_t out_stride) {
  Floats left[kRows], right[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
    left[r] = begun ? load(out + r * out_stride) : Floats{};
    right[r] = begun ? load(out + r * out_stride + kLanes) : Floats{};
  }
  for (size_t j = 0; j < depth; ++j) {
    const Floats a = load(packed + j * kPanel), b = load(packed + j * kPanel + kLanes);
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
      const Floats x = splat(rows[r * row_stride + j]);
      left[r] = fma(a, x, left[r]);
      right[r] = fma(b, x, right[r]);
    }
  }
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
    store_as(out + r * out_stride, left[r]);
    store_as(out + r * out_stride + kLanes, right[r]);
  }
}

void panel_products(const float* rows, size_t row_stride, size_t n, const float* packed, size_t dim, float* out,
                    size_t out_stride) {
  for (size_t first = 0; first < dim || first == 0; first += kDepth) {
    const size_t depth = dim - first < kDepth ? dim - first : kDepth;
    const float* part = packed + first * kPanel;
    size_t i = 0;
    for (; i + 6 <= n; i += 6)
      product_block<6>(rows + i * row_stride + first, row_stride, part, depth, first > 0, out + i * out_stride, out_stride);
    for (; i < n; ++i)
      product_block<1>(rows + i * row_stride + first, row_stride, part, depth, first > 0, out + i * out_stride, out_stride);
  }
}
