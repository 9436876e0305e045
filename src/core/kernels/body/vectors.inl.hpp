// Vector types of the target's width and the few operations that need an instruction by name.
// Blocks keep one sum a row in an array; unrolled, the array is registers. Left alone, GCC 12 zeroes it in memory.
#define NEARLY_UNROLL _Pragma("GCC unroll 16")

constexpr size_t kBytes = NEARLY_BYTES;
constexpr size_t kLanes = kBytes / 4;
constexpr size_t kShorts = kBytes / 2;
constexpr size_t kPanel = 2 * kLanes;  // columns that blocks of products have beside each other

typedef float Floats __attribute__((vector_size(kBytes)));
typedef int32_t Ints __attribute__((vector_size(kBytes)));
typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef int16_t Shorts __attribute__((vector_size(kBytes)));
typedef uint16_t HalfWidthU16 __attribute__((vector_size(kBytes / 2)));
typedef uint8_t HalfWidthU8 __attribute__((vector_size(kBytes / 2)));
typedef int8_t HalfWidthI8 __attribute__((vector_size(kBytes / 2)));
typedef uint8_t QuarterU8 __attribute__((vector_size(kBytes / 4)));
typedef int8_t QuarterI8 __attribute__((vector_size(kBytes / 4)));

// Stored 16-bit floats; types of their own so that the loads below are chosen by type.
struct Half { uint16_t bits; };
struct Brain { uint16_t bits; };

template <typename V> inline V load_as(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <typename V> inline void store_as(void* p, V v) { memcpy(p, &v, sizeof v); }
inline Floats splat(float x) { return x - Floats{}; }  // x + 0 would turn -0 into 0, so it costs an addition

inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && NEARLY_BYTES == 32
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

inline Floats magnitude(Floats a) { return (Floats)((Words)a & 0x7fffffffu); }

// Sums of neighboring products: lane i holds a[2i] * b[2i] + a[2i+1] * b[2i+1].
inline Ints pair_products(Shorts a, Shorts b) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const Ints even = ((Ints)a << 16 >> 16) * ((Ints)b << 16 >> 16);
  return even + ((Ints)a >> 16) * ((Ints)b >> 16);
#endif
}

// Lanes summed in halves, down to four: the order of every sum below, alone or in company.
typedef float Fours __attribute__((vector_size(16)));
inline Fours fold(Floats v) {
#if NEARLY_BYTES == 64
  const auto half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif NEARLY_BYTES == 32
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
  return v;
#endif
}
inline float reduce(Floats v) {
  const Fours x = fold(v), y = x + __builtin_shufflevector(x, x, 2, 3, 0, 1);
  return y[0] + y[1];
}
// Four sums at once, of the same bits.
inline void reduce4(const Floats* v, float* out) {
  const Fours a = fold(v[0]), b = fold(v[1]), c = fold(v[2]), d = fold(v[3]);
  const Fours ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Fours cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store_as(out, __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
}
inline int32_t reduce(Ints v) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return _mm512_reduce_add_epi32((__m512i)v);
#elif defined(__SSE2__)
#if NEARLY_BYTES == 32
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
#else
  __m128i x = (__m128i)v;
#endif
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1));
  return _mm_cvtsi128_si32(x);
#else
  int32_t sum = 0;
  for (size_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
#endif
}

// Four sums at once: the same totals as reduce(), integers being exact in any order.
inline void reduce4(const Ints* v, int32_t* out) {
#if defined(__AVX2__)
#if NEARLY_BYTES == 64
  __m256i h[4];
  for (size_t i = 0; i < 4; ++i)
    h[i] = _mm256_add_epi32(_mm512_castsi512_si256((__m512i)v[i]), _mm512_extracti64x4_epi64((__m512i)v[i], 1));
  const __m256i a = _mm256_hadd_epi32(h[0], h[1]), b = _mm256_hadd_epi32(h[2], h[3]);
#else
  const __m256i a = _mm256_hadd_epi32((__m256i)v[0], (__m256i)v[1]), b = _mm256_hadd_epi32((__m256i)v[2], (__m256i)v[3]);
#endif
  const __m256i c = _mm256_hadd_epi32(a, b);
  store_as(out, _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)));
#else
  for (size_t i = 0; i < 4; ++i) out[i] = reduce(v[i]);
#endif
}

// kLanes stored elements as floats; `one` is the same for a single element. Both exact.
inline Floats load(const float* p) { return load_as<Floats>(p); }
// Bytes and 16-bit words widened to lanes by name: GCC 12 takes vectors narrower than 16 bytes apart, one element at a time.
inline Ints widen_to_lanes(const int8_t* p) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return (Ints)_mm512_cvtepi8_epi32((__m128i)load_as<QuarterI8>(p));
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Ints)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(p)));
#elif defined(__SSE2__)
  const __m128i x = _mm_cvtsi32_si128(load_as<int32_t>(p)), pairs = _mm_unpacklo_epi8(x, x);
  return (Ints)_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 24);
#else
  return __builtin_convertvector(load_as<QuarterI8>(p), Ints);
#endif
}
inline Ints widen_to_lanes(const uint8_t* p) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return (Ints)_mm512_cvtepu8_epi32((__m128i)load_as<QuarterU8>(p));
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Ints)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(p)));
#elif defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  return (Ints)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(load_as<int32_t>(p)), zero), zero);
#else
  return __builtin_convertvector(load_as<QuarterU8>(p), Ints);
#endif
}
inline Words widen_to_lanes(const uint16_t* p) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return (Words)_mm512_cvtepu16_epi32((__m256i)load_as<HalfWidthU16>(p));
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return (Words)_mm256_cvtepu16_epi32((__m128i)load_as<HalfWidthU16>(p));
#elif defined(__SSE2__)
  return (Words)_mm_unpacklo_epi16(_mm_cvtsi64_si128(load_as<int64_t>(p)), _mm_setzero_si128());
#else
  return __builtin_convertvector(load_as<HalfWidthU16>(p), Words);
#endif
}

inline Floats load(const int8_t* p) { return __builtin_convertvector(widen_to_lanes(p), Floats); }
inline Floats load(const uint8_t* p) { return __builtin_convertvector(widen_to_lanes(p), Floats); }
inline Floats load(const Brain* p) { return (Floats)(widen_to_lanes(&p->bits) << 16); }
inline Floats load(const Half* p) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return (Floats)_mm512_cvtph_ps((__m256i)load_as<HalfWidthU16>(p));
#elif defined(__F16C__) && NEARLY_BYTES == 32
  return (Floats)_mm256_cvtph_ps((__m128i)load_as<HalfWidthU16>(p));
#else
  // Exponent and mantissa moved into place, then scaled by 2^112: right for subnormals too; nothing stored is infinite.
  const Words h = widen_to_lanes(&p->bits);
  const Floats scaled = (Floats)((h & 0x7fffu) << 13) * splat(0x1p112f);
  return (Floats)((Words)scaled | ((h & 0x8000u) << 16));
#endif
}

inline float one(const float* p) { return *p; }
inline float one(const int8_t* p) { return static_cast<float>(*p); }
inline float one(const uint8_t* p) { return static_cast<float>(*p); }
inline float one(const Brain* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  return load_as<float>(&bits);
}
inline float one(const Half* p) {
  const uint32_t bits = (p->bits & 0x7fffu) << 13;
  const float scaled = load_as<float>(&bits) * 0x1p112f;
  return p->bits & 0x8000u ? -scaled : scaled;
}

// Bit i is set where a[i] < b[i] is not so.
inline uint32_t not_below(Floats a, Floats b) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLT_UQ);
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NLT_UQ)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps(_mm_cmpnlt_ps((__m128)a, (__m128)b)));
#else
  uint32_t bits = 0;
  for (size_t i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(!(a[i] < b[i])) << i;
  return bits;
#endif
}

inline const uint8_t* row_at(const uint8_t* base, size_t stride, const uint32_t* rows, size_t i) {
  return base + (rows ? rows[i] : i) * stride;
}
