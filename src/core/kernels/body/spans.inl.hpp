// Which values of a column lie in spans: a bit a value, value 0 the lowest bit of word 0.

template <typename T> struct Lanes { typedef T type __attribute__((vector_size(kBytes))); };

// Bit i is set where lane i is all ones.
template <typename T, typename V> inline uint64_t lane_bits(V mask) {
#if defined(__AVX512F__) && NEARLY_BYTES == 64
  if constexpr (sizeof(T) == 8) return _mm512_movepi64_mask((__m512i)mask);
  if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)mask);
  if constexpr (sizeof(T) == 2) return _mm512_movepi16_mask((__m512i)mask);
  return _mm512_movepi8_mask((__m512i)mask);
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  if constexpr (sizeof(T) == 8) return static_cast<uint32_t>(_mm256_movemask_pd((__m256d)mask));
  if constexpr (sizeof(T) == 4) return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
  if constexpr (sizeof(T) == 2) {
    const __m128i low = _mm256_castsi256_si128((__m256i)mask), high = _mm256_extracti128_si256((__m256i)mask, 1);
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(low, high)));
  }
  return static_cast<uint32_t>(_mm256_movemask_epi8((__m256i)mask));
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 8) return static_cast<uint32_t>(_mm_movemask_pd((__m128d)mask));
  if constexpr (sizeof(T) == 4) return static_cast<uint32_t>(_mm_movemask_ps((__m128)mask));
  if constexpr (sizeof(T) == 2)
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16((__m128i)mask, _mm_setzero_si128())));
  return static_cast<uint32_t>(_mm_movemask_epi8((__m128i)mask));
#else
  uint64_t bits = 0;
  for (size_t i = 0; i < kBytes / sizeof(T); ++i) bits |= static_cast<uint64_t>(mask[i] & 1) << i;
  return bits;
#endif
}

template <size_t kSize> struct Unsigned;
template <> struct Unsigned<1> { using type = uint8_t; };
template <> struct Unsigned<2> { using type = uint16_t; };
template <> struct Unsigned<4> { using type = uint32_t; };
template <> struct Unsigned<8> { using type = uint64_t; };

// A whole number x is in [low, high] where x - low, taken without sign, is at most high - low: one subtraction and one
// comparison. Comparisons have a sign, so the highest bit of both sides is turned, beforehand.
template <typename T> struct WholeSpan {
  using Bits = typename Unsigned<sizeof(T)>::type;
  typedef typename Lanes<T>::type V;
  typedef typename Lanes<Bits>::type U;
  static constexpr bool kMeansOutside = true;
  U from;
  V width;
  void set(int64_t low, int64_t high) {
    constexpr Bits kTurned = static_cast<Bits>(Bits{1} << (8 * sizeof(T) - 1));
    from = U{} + static_cast<Bits>(static_cast<Bits>(low) ^ kTurned);
    const Bits length = static_cast<Bits>(static_cast<Bits>(high) - static_cast<Bits>(low));
    width = (V)(U{} + static_cast<Bits>(length ^ kTurned));
  }
  auto test(V x) const { return (V)((U)x - from) > width; }
};

struct FloatSpan {
  typedef typename Lanes<double>::type V;
  static constexpr bool kMeansOutside = false;  // what is no number is inside of nothing
  V from, to;
  void set(double low, double high) { from = low - V{}, to = high - V{}; }
  auto test(V x) const { return (x >= from) & (x <= to); }
};

// 64 values at x.
template <typename T, typename Span> inline uint64_t spans_word(const T* x, const Span* spans, size_t n_spans) {
  using V = typename Lanes<T>::type;
  constexpr size_t kStep = kBytes / sizeof(T);
  uint64_t word = 0;
  NEARLY_UNROLL for (size_t j = 0; j < 64; j += kStep) {
    const V v = load_as<V>(x + j);
    auto found = spans[0].test(v);
    for (size_t s = 1; s < n_spans; ++s) {
      if constexpr (Span::kMeansOutside)
        found &= spans[s].test(v);
      else
        found |= spans[s].test(v);
    }
    word |= lane_bits<T>(found) << j;
  }
  return Span::kMeansOutside ? ~word : word;
}

template <typename T, typename Span, typename Bound>
void in_spans(const void* values, size_t n, const Bound* low, const Bound* high, size_t n_spans, uint64_t* bits) {
  const T* x = static_cast<const T*>(values);
  Span spans[kMostSpans];
  for (size_t s = 0; s < n_spans; ++s) spans[s].set(low[s], high[s]);
  size_t i = 0;
  if (n_spans == 1)  // its bounds stay in registers
    for (; i + 64 <= n; i += 64) bits[i / 64] = spans_word(x + i, spans, 1);
  else if (n_spans == 2)
    for (; i + 64 <= n; i += 64) bits[i / 64] = spans_word(x + i, spans, 2);
  else
    for (; i + 64 <= n; i += 64) bits[i / 64] = spans_word(x + i, spans, n_spans);
  if (i < n) {
    T rest[64] = {};
    memcpy(rest, x + i, (n - i) * sizeof(T));
    bits[i / 64] = spans_word(rest, spans, n_spans) & ((uint64_t{1} << (n - i)) - 1);
  }
}
