// Sums of 4-bit lookups for blocks of 32 vectors: the inner loop of product and sign codes (André et al., "Cache
// locality is not enough", PVLDB 2015; layout of Faiss's FastScan without its permutation of vectors).
// A table of 16 bytes fits a register, so one byte shuffle looks up 16 vectors. Sums are exact, so equal on every target.
#if defined(__AVX2__)
#if NEARLY_BYTES == 64
typedef __m512i Lookup;
inline Lookup lookup_zero() { return _mm512_setzero_si512(); }
inline Lookup lookup_load(const uint8_t* p, size_t bytes) {
  return _mm512_maskz_loadu_epi8(bytes >= 64 ? ~0ull : (1ull << bytes) - 1, p);
}
inline Lookup lookup_low(Lookup x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Lookup lookup_high(Lookup x) { return lookup_low(_mm512_srli_epi16(x, 4)); }
inline Lookup lookup_in(Lookup table, Lookup at) { return _mm512_shuffle_epi8(table, at); }
inline Lookup lookup_add(Lookup a, Lookup b) { return _mm512_add_epi16(a, b); }
inline Lookup lookup_odd(Lookup x) { return _mm512_srli_epi16(x, 8); }
inline Lookup lookup_even(Lookup both, Lookup odd) { return _mm512_sub_epi16(both, _mm512_slli_epi16(odd, 8)); }
inline __m128i lookup_fold(Lookup x) {
  const __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
#else
typedef __m256i Lookup;
inline Lookup lookup_zero() { return _mm256_setzero_si256(); }
inline Lookup lookup_load(const uint8_t* p, size_t) { return load_as<Lookup>(p); }  // groups come in pairs
inline Lookup lookup_low(Lookup x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Lookup lookup_high(Lookup x) { return lookup_low(_mm256_srli_epi16(x, 4)); }
inline Lookup lookup_in(Lookup table, Lookup at) { return _mm256_shuffle_epi8(table, at); }
inline Lookup lookup_add(Lookup a, Lookup b) { return _mm256_add_epi16(a, b); }
inline Lookup lookup_odd(Lookup x) { return _mm256_srli_epi16(x, 8); }
inline Lookup lookup_even(Lookup both, Lookup odd) { return _mm256_sub_epi16(both, _mm256_slli_epi16(odd, 8)); }
inline __m128i lookup_fold(Lookup x) {
  return _mm_add_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
#endif

// Sums of 16 vectors: 16-bit lanes hold even bytes plus 256 times odd bytes (modulo 2^16), and odd bytes alone.
inline void lookup_store(Lookup both, Lookup odd, uint16_t* out) {
  const __m128i evens = lookup_fold(lookup_even(both, odd)), odds = lookup_fold(odd);
  store_as(out, _mm_unpacklo_epi16(evens, odds));
  store_as(out + 8, _mm_unpackhi_epi16(evens, odds));
}

void fastscan(const uint8_t* tables, const uint8_t* packed, size_t groups, size_t blocks, uint16_t* out) {
  const size_t bytes = groups * 16;
  for (size_t b = 0; b < blocks; ++b, packed += bytes, out += 32) {
    Lookup low = lookup_zero(), low_odd = low, high = low, high_odd = low;
    for (size_t j = 0; j < bytes; j += kBytes) {
      const Lookup codes = lookup_load(packed + j, bytes - j), table = lookup_load(tables + j, bytes - j);
      const Lookup a = lookup_in(table, lookup_low(codes)), c = lookup_in(table, lookup_high(codes));
      low = lookup_add(low, a);
      low_odd = lookup_add(low_odd, lookup_odd(a));
      high = lookup_add(high, c);
      high_odd = lookup_add(high_odd, lookup_odd(c));
    }
    lookup_store(low, low_odd, out);
    lookup_store(high, high_odd, out + 16);
  }
}
#else
void fastscan(const uint8_t* tables, const uint8_t* packed, size_t groups, size_t blocks, uint16_t* out) {
  for (size_t b = 0; b < blocks; ++b, out += 32) {
    uint16_t sum[32] = {};
    for (size_t g = 0; g < groups; ++g, packed += 16)
      for (size_t i = 0; i < 16; ++i) {
        sum[i] = static_cast<uint16_t>(sum[i] + tables[g * 16 + (packed[i] & 15)]);
        sum[16 + i] = static_cast<uint16_t>(sum[16 + i] + tables[g * 16 + (packed[i] >> 4)]);
      }
    memcpy(out, sum, sizeof sum);
  }
}
#endif
