// Exact scans of many queries: vectors as whole numbers of 16 bits, their products in blocks, and which of these reach a
// floor. Sums are of whole numbers, so equal on every target.

// out[j] = from[j] * scale.
template <typename Stored> void widen_row(const void* from, size_t n, float scale, float* out) {
  const auto* x = static_cast<const Stored*>(from);
  size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store_as(out + j, load(x + j) * splat(scale));
  for (; j < n; ++j) out[j] = one(x + j) * scale;
}

// x -= center; returns |x|^2. Sums in double: the squares of small floats are none.
double center_row(float* x, const float* center, size_t n) {
  typedef double Doubles __attribute__((vector_size(kBytes)));
  typedef float Narrow __attribute__((vector_size(kBytes / 2)));
  Doubles even{}, odd{};
  size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Floats centered = load(x + j) - load(center + j);
    store_as(x + j, centered);
    const Doubles a = __builtin_convertvector(load_as<Narrow>(x + j), Doubles);
    const Doubles b = __builtin_convertvector(load_as<Narrow>(x + j + kLanes / 2), Doubles);
    even += a * a;
    odd += b * b;
  }
  even += odd;
  double sum = 0;
  for (size_t i = 0; i < kLanes / 2; ++i) sum += even[i];
  for (; j < n; ++j) {
    x[j] -= center[j];
    sum += static_cast<double>(x[j]) * x[j];
  }
  return sum;
}

// out[j] = round(x[j] * scale), ties to even, by the trick of quantize(). What does not fit 16 bits is cut to some that do.
void round_row(const float* x, size_t n, float scale, int16_t* out) {
  const float magic = 12582912.0f;
  for (size_t j = 0; j < n; ++j) {
    const float shifted = x[j] * scale + magic;
    out[j] = static_cast<int16_t>(load_as<uint32_t>(&shifted));
  }
}

inline Ints add_pair_products(Shorts a, Shorts b, Ints sum) {
#if defined(__AVX512VNNI__) && NEARLY_BYTES == 64
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#else
  return sum + pair_products(a, b);
#endif
}

template <size_t kRows>
inline void whole_block(const int16_t* rows, size_t row_stride, const int16_t* packed, size_t depth, bool begun,
                        int32_t* out, size_t out_stride) {
  Ints left[kRows], right[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
    left[r] = begun ? load_as<Ints>(out + r * out_stride) : Ints{};
    right[r] = begun ? load_as<Ints>(out + r * out_stride + kLanes) : Ints{};
  }
  for (size_t j = 0; j < depth; j += 2) {
    const Shorts a = load_as<Shorts>(packed + j * kPanel), b = load_as<Shorts>(packed + j * kPanel + kShorts);
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
      const Shorts x = (Shorts)(Ints{} + load_as<int32_t>(rows + r * row_stride + j));
      left[r] = add_pair_products(a, x, left[r]);
      right[r] = add_pair_products(b, x, right[r]);
    }
  }
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
    store_as(out + r * out_stride, left[r]);
    store_as(out + r * out_stride + kLanes, right[r]);
  }
}

void whole_products(const int16_t* rows, size_t row_stride, size_t n, const int16_t* packed, size_t dim, int32_t* out,
                    size_t out_stride) {
  constexpr size_t kPart = 2 * kDepth;  // as many bytes as products.inl.hpp keeps in the first cache
  for (size_t first = 0; first < dim || first == 0; first += kPart) {
    const size_t depth = dim - first < kPart ? dim - first : kPart;
    const int16_t* part = packed + first * kPanel;
    size_t i = 0;
    for (; i + 6 <= n; i += 6)
      whole_block<6>(rows + i * row_stride + first, row_stride, part, depth, first > 0, out + i * out_stride, out_stride);
    for (; i + 4 <= n; i += 4)  // what blocks of 64 leave
      whole_block<4>(rows + i * row_stride + first, row_stride, part, depth, first > 0, out + i * out_stride, out_stride);
    for (; i < n; ++i)
      whole_block<1>(rows + i * row_stride + first, row_stride, part, depth, first > 0, out + i * out_stride, out_stride);
  }
}

size_t reaching(const int32_t* tile, size_t n, const float* row_floor, const float* row_scale, const float* floor,
                const float* scale, float allowance, Reached* out) {
  const Floats floor0 = load(floor), floor1 = load(floor + kLanes), scale0 = load(scale), scale1 = load(scale + kLanes);
  const Floats less = splat(-allowance);
  size_t count = 0;
  for (size_t i = 0; i < n; ++i, tile += kPanel) {
    const Floats f = splat(row_floor[i]), s = splat(row_scale[i]);
    const Floats a = __builtin_convertvector(load_as<Ints>(tile), Floats);
    const Floats b = __builtin_convertvector(load_as<Ints>(tile + kLanes), Floats);
    const uint32_t low = not_below(a, fma(f, scale0, fma(floor0, s, less)));
    const uint32_t high = not_below(b, fma(f, scale1, fma(floor1, s, less)));
    out[count] = {static_cast<uint32_t>(i), low | high << kLanes};
    count += (low | high) != 0;
  }
  return count;
}
