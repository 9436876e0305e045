// Codes of magnitudes: how well those of one scale point in their direction, and what leads to a good scale. Each unit of 64
// has a grid. Sixteen sums on every target, added up in one order: the same bits on all.
constexpr size_t kSums = 16 / kLanes;

inline float sum_of_sums(Floats* sums) {
  if constexpr (kSums == 4) sums[0] += sums[2], sums[1] += sums[3];
  if constexpr (kSums > 1) sums[0] += sums[1];
  return reduce(sums[0]);
}

// With k = min(floor(scale * a[j]), top), the scale being the unit's share: out[0] = sum product * (k + 1/2) * a[j] and
// out[1] = sum square * (k + 1/2)^2, so that out[0]^2 / out[1] is their squared cosine times |a|^2 (where all weights are 1).
void sweep(const float* a, size_t units, float scale, const Grid* grids, float* out) {
  const Floats half = splat(0.5f);
  Floats product[kSums], square[kSums];
  NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) product[i] = square[i] = Floats{};
  for (size_t u = 0; u < units; ++u, a += 64) {
    const Floats scales = splat(scale * grids[u].share), most = splat(grids[u].top);
    Floats along[kSums], length[kSums];
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) along[i] = length[i] = Floats{};
    for (size_t j = 0; j < 64; j += 16)
      NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
        const Floats x = load(a + j + i * kLanes), scaled = x * scales;
        const Floats inside = scaled < most ? scaled : most;  // before it is made whole: no number is too large then
        const Floats k = __builtin_convertvector(__builtin_convertvector(inside, Ints), Floats) + half;
        along[i] += k * x;
        length[i] += k * k;
      }
    const Floats of_product = splat(grids[u].product), of_square = splat(grids[u].square);
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
      product[i] += of_product * along[i];
      square[i] += of_square * length[i];
    }
  }
  out[0] = sum_of_sums(product);
  out[1] = sum_of_sums(square);
}

// Magnitudes as whole numbers of 15 bits, `fine` of them to 1: twice as many at a time are enough to find a scale.
void fine_steps(const float* a, size_t units, const Grid* grids, int16_t* out) {
  for (size_t u = 0; u < units; ++u, a += 64, out += 64)
    for (size_t j = 0; j < 64; ++j) {
      const float x = a[j] * grids[u].fine + 0.5f;
      out[j] = static_cast<int16_t>(static_cast<int32_t>(x < 32767.0f ? x : 32767.0f));
    }
}

// Products of unsigned 16-bit numbers, their upper halves.
inline Shorts upper_products(Shorts a, Shorts b) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  return (Shorts)_mm512_mulhi_epu16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Shorts)_mm256_mulhi_epu16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Shorts)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
  Shorts out;
  for (size_t i = 0; i < kShorts; ++i)
    out[i] = static_cast<int16_t>(static_cast<uint32_t>(static_cast<uint16_t>(a[i])) * static_cast<uint16_t>(b[i]) >> 16);
  return out;
#endif
}

// The two sums of sweep() for each of at most kTries scales, by fine steps, with 2 k + 1 for k + 1/2. No sum of a unit leaves
// 32 bits: a lane adds at most sixteen products, of 4095 and 32767 at most. What a unit has alike for all scales is made once.
void tries(const int16_t* a, size_t units, const float* scales, size_t n, const Grid* grids, float* out) {
  Floats product[kTries][kSums], square[kTries][kSums];
  for (size_t s = 0; s < n; ++s)
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) product[s][i] = square[s][i] = Floats{};
  for (size_t u = 0; u < units; ++u, a += 64) {
    const Grid& grid = grids[u];
    const auto top = static_cast<int16_t>(2 * grid.top + 1);
    const Shorts most = Shorts{} + top, one = Shorts{} + 1;
    const float widest = grid.share * grid.inverse * 131072.0f;
    const Floats of_product = splat(grid.product * 0.5f * grid.inverse), of_square = splat(grid.square * 0.25f);
    for (size_t s = 0; s < n; ++s) {
      const float doubled = scales[s] * widest;
      const auto by = static_cast<int16_t>(static_cast<int32_t>(doubled < 65535.0f ? doubled : 65535.0f));
      const Shorts scale = Shorts{} + by;
      Ints along[kSums], length[kSums];
      NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) along[i] = length[i] = Ints{};
      NEARLY_UNROLL for (size_t j = 0; j < 64; j += 32)
        NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
          const Shorts own = load_as<Shorts>(a + j + i * kShorts), code = upper_products(own, scale) | one;
          const Shorts inside = code < most ? code : most;
          along[i] = add_pair_products(inside, own, along[i]);
          length[i] = add_pair_products(inside, inside, length[i]);
        }
      NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
        product[s][i] += of_product * __builtin_convertvector(along[i], Floats);
        square[s][i] += of_square * __builtin_convertvector(length[i], Floats);
      }
    }
  }
  for (size_t s = 0; s < n; ++s) {
    out[2 * s] = sum_of_sums(product[s]);
    out[2 * s + 1] = sum_of_sums(square[s]);
  }
}

// By fine steps: with the inverse u of a scale the squared error of codes is about the sum, over what is within, of
// square * u^2 / 12, a twelfth of the square of a step, and, over what is clipped (a > h * u, h being top + 1/2), of
// square * (a - h * u)^2. While the same is clipped that is least for u = out[0] / out[1].
void clipped(const int16_t* a, size_t units, float inverse, const Grid* grids, float* out) {
  constexpr float kFlat = 1.0f / 12.0f;
  Floats product[kSums], square[kSums];
  NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) product[i] = square[i] = Floats{};
  float within = 0;
  for (size_t u = 0; u < units; ++u, a += 64) {
    const float most = grids[u].top + 0.5f, edge = most * inverse * grids[u].fine;
    const auto whole_edge = static_cast<int16_t>(static_cast<int32_t>(edge < 32767.0f ? edge : 32767.0f));
    const Shorts limit = Shorts{} + whole_edge;
    Ints sum[kSums], count[kSums];
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) sum[i] = count[i] = Ints{};
    for (size_t j = 0; j < 64; j += 32)
      NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
        const Shorts own = load_as<Shorts>(a + j + i * kShorts), beyond = own > limit;
        sum[i] = add_pair_products(beyond & own, Shorts{} + 1, sum[i]);
        count[i] = add_pair_products(beyond, Shorts{} - 1, count[i]);
      }
    const Floats of_sum = splat(grids[u].square * most * grids[u].inverse);
    const Floats of_count = splat(grids[u].square * (most * most - kFlat));
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
      product[i] += of_sum * __builtin_convertvector(sum[i], Floats);
      square[i] += of_count * __builtin_convertvector(count[i], Floats);
    }
    within += grids[u].square * (64 * kFlat);
  }
  out[0] = sum_of_sums(product);
  out[1] = within + sum_of_sums(square);
}

// out[u] = the square of unit u of whole numbers, as a float.
void unit_squares(const int32_t* x, size_t units, float* out) {
  for (size_t u = 0; u < units; ++u, x += 64) {
    Floats sum[kSums];
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) sum[i] = Floats{};
    for (size_t j = 0; j < 64; j += 16)
      NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
        const Floats own = __builtin_convertvector(load_as<Ints>(x + j + i * kLanes), Floats);
        sum[i] += own * own;
      }
    out[u] = sum_of_sums(sum);
  }
}

inline Floats load(const int32_t* x) { return __builtin_convertvector(load_as<Ints>(x), Floats); }

// out[j] = |x[j]| * scale of floats or whole numbers; n is a multiple of 64.
template <typename Stored> void magnitudes(const Stored* x, size_t n, float scale, float* out) {
  const Floats by = splat(scale);
  for (size_t j = 0; j < n; j += kLanes) store_as(out + j, magnitude(load(x + j)) * by);
}
