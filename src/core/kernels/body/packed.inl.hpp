// Products with codes of 1 to 8 bits a dimension, packed in units of 64 dimensions. A width is a byte (8), or the sum of
// a 4-bit, a 2-bit and a 1-bit part, in this order of place and of worth: 7 bits are 32 + 16 + 8 bytes a unit and mean
// 8 * nibble + 2 * pair + bit. Byte i of the 4-bit part holds dimensions i and 32 + i, low bits first; of the 2-bit part
// i, 16 + i, 32 + i, 48 + i; bit i of the 1-bit part is dimension i. Exact, so equal on every target.
constexpr size_t kUnit = 64;
constexpr size_t kRegisters = kUnit / kBytes;  // of a unpacked unit

inline void unpack_nibbles(const uint8_t* p, Codes* out) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  const __m512i shift = _mm512_set_epi32(4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0);
  out[0] = (Codes)_mm512_srlv_epi32(_mm512_broadcast_i64x4(load_as<__m256i>(p)), shift) & 15;
#else
  for (size_t r = 0; r < kRegisters / 2; ++r) {
    const Words pair = load_as<Words>(p + r * kBytes);
    out[r] = (Codes)pair & 15;
    out[kRegisters / 2 + r] = (Codes)(pair >> 4) & 15;
  }
#endif
}

inline void unpack_pairs(const uint8_t* p, Codes* out) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  const __m512i shift = _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0);
  out[0] = (Codes)_mm512_srlv_epi32(_mm512_broadcast_i32x4(load_as<__m128i>(p)), shift) & 3;
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  const __m256i low = _mm256_srlv_epi32(_mm256_broadcastsi128_si256(load_as<__m128i>(p)),
                                        _mm256_set_epi32(2, 2, 2, 2, 0, 0, 0, 0));
  out[0] = (Codes)low & 3;
  out[1] = (Codes)((Words)low >> 4) & 3;
#else
  const Words all = load_as<Words>(p);
  NEARLY_UNROLL for (size_t r = 0; r < kRegisters; ++r) out[r] = (Codes)(all >> static_cast<int>(2 * r)) & 3;
#endif
}

inline void unpack_bits(const uint8_t* p, Codes* out) {
#if defined(__AVX512BW__) && NEARLY_BYTES == 64
  out[0] = (Codes)_mm512_maskz_set1_epi8(load_as<uint64_t>(p), 1);
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  const __m256i word = _mm256_set1_epi64x(load_as<int64_t>(p)), place = _mm256_set1_epi64x(0x8040201008040201ll);
  const __m256i first = _mm256_set_epi64x(0x0303030303030303ll, 0x0202020202020202ll, 0x0101010101010101ll, 0);
  NEARLY_UNROLL for (size_t r = 0; r < kRegisters; ++r) {
    const __m256i at = _mm256_add_epi8(first, _mm256_set1_epi8(static_cast<char>(4 * r)));
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, at), place), place);
    out[r] = (Codes)set & 1;
  }
#else
  typedef uint64_t Longs __attribute__((vector_size(kBytes)));
  for (size_t r = 0; r < kRegisters; ++r) {
    Longs spread;
    for (size_t i = 0; i < kBytes / 8; ++i) spread[i] = p[r * kBytes / 8 + i] * 0x0101010101010101ull;
    const Codes place = (Codes)(Longs{} + 0x8040201008040201ull);
    out[r] = (Codes)(((Codes)spread & place) == place) & 1;
  }
#endif
}

template <int kBits> inline void unpack(const uint8_t* p, Codes* out) {
  if constexpr (kBits == 8) {
    NEARLY_UNROLL for (size_t r = 0; r < kRegisters; ++r) out[r] = load_as<Codes>(p + r * kBytes);
    return;
  }
  NEARLY_UNROLL for (size_t r = 0; r < kRegisters; ++r) out[r] = Codes{};
  Codes part[kRegisters];
  if constexpr (kBits & 4) unpack_nibbles(p, out);
  if constexpr (kBits & 2) {
    unpack_pairs(p + (kBits & 4) * 8, part);
    NEARLY_UNROLL for (size_t r = 0; r < kRegisters; ++r) {
      const Codes twice = out[r] + out[r];
      out[r] = twice + twice + part[r];
    }
  }
  if constexpr (kBits & 1) {
    unpack_bits(p + (kBits & 6) * 8, part);
    NEARLY_UNROLL for (size_t r = 0; r < kRegisters; ++r) out[r] = out[r] + out[r] + part[r];
  }
}

template <int kBits, size_t kRows>
inline void packed_block(const int8_t* query, const uint8_t* const* row, size_t units, int32_t* out) {
  Ints sum[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) sum[r] = Ints{};
  for (size_t u = 0; u < units; ++u) {
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
      Codes codes[kRegisters];
      unpack<kBits>(row[r] + u * kBits * 8, codes);
      NEARLY_UNROLL for (size_t i = 0; i < kRegisters; ++i)
        sum[r] = add_code_products(codes[i], load_as<Bytes>(query + u * kUnit + i * kBytes), sum[r]);
    }
  }
  if constexpr (kRows == 4)
    reduce4(sum, out);
  else
    out[0] = reduce(sum[0]);
}

template <int kBits>
void packed_dots(const int8_t* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t units,
                 int32_t* out) {
  const uint8_t* row[4];
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t r = 0; r < 4; ++r) row[r] = row_at(base, stride, rows, i + r);
    packed_block<kBits, 4>(query, row, units, out + i);
  }
  for (; i < n; ++i) {
    row[0] = row_at(base, stride, rows, i);
    packed_block<kBits, 1>(query, row, units, out + i);
  }
}
