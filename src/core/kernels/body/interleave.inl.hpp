// Rows of 4-bit codes as a block for `fastscan`: a transposition of 32 rows, 8 bytes of each at a time. Byte j of a row
// holds groups 2j (low bits) and 2j + 1. Reading 32 scattered rows this way costs less than their single lookups.
typedef uint8_t Bytes16 __attribute__((vector_size(16)));

inline Bytes16 zip_low(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes16 zip_high(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// out[j] = byte j of 16 rows. Each step puts rows beside each other that are half as far apart as in the step before.
inline void transpose_eight(const uint8_t* const* row, size_t at, Bytes16* out) {
  Bytes16 pair[8], four[8], eight[8];
  NEARLY_UNROLL for (size_t i = 0; i < 8; ++i) {
    typedef uint64_t Longs16 __attribute__((vector_size(16)));
    const Longs16 a = {load_as<uint64_t>(row[i] + at), 0}, b = {load_as<uint64_t>(row[i + 8] + at), 0};
    pair[i] = zip_low((Bytes16)a, (Bytes16)b);
  }
  NEARLY_UNROLL for (size_t i = 0; i < 4; ++i) {  // four[i]: bytes 0 to 3, four[4 + i]: bytes 4 to 7
    four[i] = zip_low(pair[i], pair[i + 4]);
    four[4 + i] = zip_high(pair[i], pair[i + 4]);
  }
  NEARLY_UNROLL for (size_t i = 0; i < 2; ++i) {
    NEARLY_UNROLL for (size_t h = 0; h < 2; ++h) {  // eight[2 * q + i]: bytes 2q and 2q + 1
      eight[4 * h + i] = zip_low(four[4 * h + i], four[4 * h + i + 2]);
      eight[4 * h + 2 + i] = zip_high(four[4 * h + i], four[4 * h + i + 2]);
    }
  }
  NEARLY_UNROLL for (size_t q = 0; q < 4; ++q) {
    out[2 * q] = zip_low(eight[2 * q], eight[2 * q + 1]);
    out[2 * q + 1] = zip_high(eight[2 * q], eight[2 * q + 1]);
  }
}

void interleave(const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t bytes, uint8_t* out) {
  const uint8_t* row[32];
  for (size_t i = 0; i < 32; ++i) row[i] = row_at(base, stride, rows, i < n ? i : n - 1);
  for (size_t at = 0; at < bytes; at += 8, out += 256) {
    Bytes16 low[8], high[8];
    transpose_eight(row, at, low);
    transpose_eight(row + 16, at, high);
    NEARLY_UNROLL for (size_t j = 0; j < 8; ++j) {
      store_as(out + j * 32, (Bytes16)((low[j] & 15) | (high[j] << 4)));
      store_as(out + j * 32 + 16, (Bytes16)((low[j] >> 4) | (high[j] & 0xf0)));
    }
  }
}
