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

template <int kBits> inline void pack(const uint8_t* x, uint8_t* out) {
  if constexpr (kBits == 8) {
    memcpy(out, x, kUnit);
    return;
  }
  if constexpr (kBits & 4) {
    for (size_t i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>((x[i] >> (kBits & 3)) | (x[32 + i] >> (kBits & 3)) << 4);
    out += 32;
  }
  if constexpr (kBits & 2) {
    for (size_t i = 0; i < 16; ++i) {
      const int low = x[i] >> (kBits & 1) & 3, second = x[16 + i] >> (kBits & 1) & 3;
      const int third = x[32 + i] >> (kBits & 1) & 3, fourth = x[48 + i] >> (kBits & 1) & 3;
      out[i] = static_cast<uint8_t>(low | second << 2 | third << 4 | fourth << 6);
    }
    out += 16;
  }
  if constexpr (kBits & 1)
    for (size_t i = 0; i < 8; ++i)  // bit 8j to 56 + j
      out[i] = static_cast<uint8_t>((load_as<uint64_t>(x + i * 8) & 0x0101010101010101ull) * 0x0102040810204080ull >> 56);
}

inline void pack(const uint8_t* x, int bits, uint8_t* out) {
  switch (bits) {
    case 1: return pack<1>(x, out);
    case 2: return pack<2>(x, out);
    case 3: return pack<3>(x, out);
    case 4: return pack<4>(x, out);
    case 5: return pack<5>(x, out);
    case 6: return pack<6>(x, out);
    case 7: return pack<7>(x, out);
    default: return pack<8>(x, out);
  }
}

// With k = min(floor(scale * a[j]), top), top being the largest of all bits but one: the code is k below a leading 1 where
// the sign, a float's or a whole number's bits, is above 0, and k's complement below a leading 0 elsewhere.
void cut(const float* a, const int32_t* signs, size_t units, float scale, int lead, int further, uint8_t* leading,
         uint8_t* rest) {
  const int32_t above = 1 << (lead + further - 1), mask = above - 1;
  const Floats scales = splat(scale), most = splat(static_cast<float>(mask));
  for (size_t u = 0; u < units; ++u, a += kUnit, signs += kUnit) {
    int32_t code[kUnit];
    uint8_t bytes[kUnit];
    for (size_t j = 0; j < kUnit; j += kLanes) {
      const Floats scaled = load(a + j) * scales, inside = scaled < most ? scaled : most;
      const Ints k = __builtin_convertvector(inside, Ints), positive = load_as<Ints>(signs + j) > 0;
      store_as(code + j, (positive & (k | above)) | (~positive & (k ^ mask)));
    }
    for (size_t j = 0; j < kUnit; ++j) bytes[j] = static_cast<uint8_t>(code[j] >> further);
    pack(bytes, lead, leading + u * static_cast<size_t>(lead) * 8);
    if (further == 0) continue;
    for (size_t j = 0; j < kUnit; ++j) bytes[j] = static_cast<uint8_t>(code[j] & ((1 << further) - 1));
    pack(bytes, further, rest + u * static_cast<size_t>(further) * 8);
  }
}
