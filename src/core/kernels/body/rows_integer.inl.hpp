// Distances between bytes: exact integer sums, equal on every target, rounded once to float at the end.
// 32-bit sums hold dim <= 32768 products of bytes; the binding refuses more.
// By name: GCC 12 makes three instructions of one.
inline Shorts widen(const uint8_t* p) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  return (Shorts)_mm512_cvtepu8_epi16((__m256i)load_as<HalfWidthU8>(p));
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Shorts)_mm256_cvtepu8_epi16((__m128i)load_as<HalfWidthU8>(p));
#elif defined(__SSE2__)
  return (Shorts)_mm_unpacklo_epi8(_mm_cvtsi64_si128(load_as<int64_t>(p)), _mm_setzero_si128());
#else
  return __builtin_convertvector(load_as<HalfWidthU8>(p), Shorts);
#endif
}
inline Shorts widen(const int8_t* p) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  return (Shorts)_mm512_cvtepi8_epi16((__m256i)load_as<HalfWidthI8>(p));
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Shorts)_mm256_cvtepi8_epi16((__m128i)load_as<HalfWidthI8>(p));
#elif defined(__SSE2__)
  const __m128i x = _mm_cvtsi64_si128(load_as<int64_t>(p));
  return (Shorts)_mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8);
#else
  return __builtin_convertvector(load_as<HalfWidthI8>(p), Shorts);
#endif
}

struct IntegerL2 {
  static Ints step(Shorts q, Shorts x, Ints sum) { const Shorts d = q - x; return sum + pair_products(d, d); }
  static int32_t step(int32_t q, int32_t x, int32_t sum) { return sum + (q - x) * (q - x); }
  static float last(int32_t sum) { return static_cast<float>(sum); }
};
struct IntegerDot {
  static Ints step(Shorts q, Shorts x, Ints sum) { return sum + pair_products(q, x); }
  static int32_t step(int32_t q, int32_t x, int32_t sum) { return sum + q * x; }
  static float last(int32_t sum) { return 0.0f - static_cast<float>(sum); }
};

template <typename Distance, typename Stored, size_t kRows>
inline void integer_block(const Stored* query, const uint8_t* const* row, size_t dim, float* out) {
  Ints sum[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) sum[r] = Ints{};
  size_t j = 0;
  for (; j + kShorts <= dim; j += kShorts) {
    const Shorts q = widen(query + j);
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r)
      sum[r] = Distance::step(q, widen(reinterpret_cast<const Stored*>(row[r]) + j), sum[r]);
  }
  int32_t total[kRows];
  if constexpr (kRows == 4)
    reduce4(sum, total);
  else
    total[0] = reduce(sum[0]);
  if (j < dim)
    for (size_t r = 0; r < kRows; ++r)
      for (size_t t = j; t < dim; ++t)
        total[r] = Distance::step(int32_t{query[t]}, int32_t{reinterpret_cast<const Stored*>(row[r])[t]}, total[r]);
  for (size_t r = 0; r < kRows; ++r) out[r] = Distance::last(total[r]);
}

template <typename Distance, typename Stored>
void integer_rows(const void* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t dim,
                  float* out) {
  const Stored* q = static_cast<const Stored*>(query);
  const uint8_t* row[4];
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t r = 0; r < 4; ++r) row[r] = row_at(base, stride, rows, i + r);
    integer_block<Distance, Stored, 4>(q, row, dim, out + i);
  }
  for (; i < n; ++i) {
    row[0] = row_at(base, stride, rows, i);
    integer_block<Distance, Stored, 1>(q, row, dim, out + i);
  }
}

// Bits: 8 bytes a step; compilers turn the counts into vector popcounts where the target has them.
void hamming_rows(const void* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t bytes,
                  float* out) {
  const uint8_t* q = static_cast<const uint8_t*>(query);
  for (size_t i = 0; i < n; ++i) {
    const uint8_t* x = row_at(base, stride, rows, i);
    uint64_t count = 0;
    size_t j = 0;
    for (; j + 8 <= bytes; j += 8) count += __builtin_popcountll(load_as<uint64_t>(q + j) ^ load_as<uint64_t>(x + j));
    for (; j < bytes; ++j) count += __builtin_popcountll(q[j] ^ x[j]);
    out[i] = static_cast<float>(count);
  }
}

// 1 - |q and x| / |q or x|; two empty sets are equal: 0.
void jaccard_rows(const void* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t bytes,
                  float* out) {
  const uint8_t* q = static_cast<const uint8_t*>(query);
  for (size_t i = 0; i < n; ++i) {
    const uint8_t* x = row_at(base, stride, rows, i);
    uint64_t both = 0, either = 0;
    size_t j = 0;
    for (; j + 8 <= bytes; j += 8) {
      const uint64_t a = load_as<uint64_t>(q + j), b = load_as<uint64_t>(x + j);
      both += __builtin_popcountll(a & b);
      either += __builtin_popcountll(a | b);
    }
    for (; j < bytes; ++j) {
      both += __builtin_popcountll(q[j] & x[j]);
      either += __builtin_popcountll(q[j] | x[j]);
    }
    out[i] = either ? static_cast<float>(either - both) / static_cast<float>(either) : 0.0f;
  }
}
