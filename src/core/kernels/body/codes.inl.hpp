// Integer products of a quantized query with rows of unsigned codes. Exact, so equal on every target.
typedef int8_t Bytes __attribute__((vector_size(kBytes)));
typedef uint8_t Codes __attribute__((vector_size(kBytes)));

// sum += products of kBytes codes (0..255) with kBytes query values (-64..63); a lane has those of four neighbors.
inline Ints add_code_products(Codes codes, Bytes query, Ints sum) {
#if defined(__AVX512VNNI__) && NEARLY_BYTES == 64
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)query);
#elif defined(__AVX2__) && NEARLY_BYTES == 32
  // 2 * 255 * 64 = 32640: the 16-bit pair sums cannot saturate.
  return sum + pair_products((Shorts)_mm256_maddubs_epi16((__m256i)codes, (__m256i)query), Shorts{} + 1);
#else
  typedef uint16_t Unsigned __attribute__((vector_size(kBytes)));
  const Shorts even = (Shorts)((Unsigned)codes & 255), odd = (Shorts)((Unsigned)codes >> 8);
  return sum + pair_products(even, (Shorts)query << 8 >> 8) + pair_products(odd, (Shorts)query >> 8);
#endif
}

template <int kBits, size_t kRows>
inline void code_block(const int8_t* query, const uint8_t* const* row, size_t size, int32_t* out) {
  Ints sum[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) sum[r] = Ints{};
  size_t j = 0;
  for (; j + kBytes <= size; j += kBytes) {
    const Bytes low = load_as<Bytes>(query + j);
    if constexpr (kBits == 8) {
      NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) sum[r] = add_code_products(load_as<Codes>(row[r] + j), low, sum[r]);
    } else {
      const Bytes high = load_as<Bytes>(query + size + j);
      NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
        const Codes pair = load_as<Codes>(row[r] + j);
        sum[r] = add_code_products(pair & 15, low, sum[r]);
        sum[r] = add_code_products(pair >> 4, high, sum[r]);
      }
    }
  }
  if constexpr (kRows == 4)
    reduce4(sum, out);
  else
    out[0] = reduce(sum[0]);
  if (j == size) return;
  for (size_t r = 0; r < kRows; ++r)
    for (size_t t = j; t < size; ++t) {
      if constexpr (kBits == 8)
        out[r] += query[t] * row[r][t];
      else
        out[r] += query[t] * (row[r][t] & 15) + query[size + t] * (row[r][t] >> 4);
    }
}

template <int kBits>
void code_dots(const int8_t* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t size,
               int32_t* out) {
  const uint8_t* row[4];
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t r = 0; r < 4; ++r) row[r] = row_at(base, stride, rows, i + r);
    code_block<kBits, 4>(query, row, size, out + i);
  }
  for (; i < n; ++i) {
    row[0] = row_at(base, stride, rows, i);
    code_block<kBits, 1>(query, row, size, out + i);
  }
}

template <int kBits>
void code_distances(const int8_t* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n,
                    float constant, float factor, float* out) {
  typedef float Four __attribute__((vector_size(16)));
  typedef int32_t FourInts __attribute__((vector_size(16)));
  const uint8_t* row[4];
  int32_t sums[4];
  const auto header = [stride](const uint8_t* r) { return load_as<float>(r + stride - 4); };
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t r = 0; r < 4; ++r) row[r] = row_at(base, stride, rows, i + r);
    code_block<kBits, 4>(query, row, stride, sums);
    const Four headers = {header(row[0]), header(row[1]), header(row[2]), header(row[3])};
    store_as(out + i, (constant + headers) + factor * __builtin_convertvector(load_as<FourInts>(sums), Four));
  }
  for (; i < n; ++i) {
    row[0] = row_at(base, stride, rows, i);
    code_block<kBits, 1>(query, row, stride, sums);
    out[i] = (constant + header(row[0])) + factor * static_cast<float>(sums[0]);
  }
}

// Rows by a panel of queries: lanes are queries, and four codes of a row at a time meet the same four values of each.
template <size_t kRows, size_t kVectors>
inline void panel_block(const int8_t* packed, const uint8_t* const* row, size_t size, Ints (&sum)[kRows][kVectors]) {
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r)
    NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) sum[r][v] = Ints{};
  for (size_t j = 0; j < size; j += 4, packed += 2 * kBytes) {
    Bytes query[kVectors];
    NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) query[v] = load_as<Bytes>(packed + v * kBytes);
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
      const Codes codes = (Codes)(Ints{} + load_as<int32_t>(row[r] + j));
      NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) sum[r][v] = add_code_products(codes, query[v], sum[r][v]);
    }
  }
}

template <size_t kVectors>
inline void panel_distances(const int8_t* packed, const float* constants, const float* factors, const float* bounds,
                            const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, bool headed, float* tile,
                            uint32_t* near) {
  constexpr size_t kRows = kBytes == 64 ? 16 / kVectors : 8 / kVectors;  // as many sums as registers hold
  const uint8_t* row[kRows];
  Ints sum[kRows][kVectors];
  for (size_t i = 0; i < n; i += kRows) {
    // What is past the end is the last row again.
    for (size_t r = 0; r < kRows; ++r) row[r] = row_at(base, stride, rows, i + r < n ? i + r : n - 1);
    panel_block<kRows, kVectors>(packed, row, stride, sum);
    for (size_t r = 0; r < kRows && i + r < n; ++r, tile += kPanel) {
      const Floats header = splat(headed ? load_as<float>(row[r] + stride - 4) : 0.0f);
      near[i + r] = 0;
      NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) {
        const Floats d = (load(constants + v * kLanes) + header) +
                         load(factors + v * kLanes) * __builtin_convertvector(sum[r][v], Floats);
        store_as(tile + v * kLanes, d);
        near[i + r] |= not_below(load(bounds + v * kLanes), d) << v * kLanes;
      }
    }
  }
}

void code_panel(const int8_t* packed, size_t queries, const float* constants, const float* factors, const float* bounds,
                const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, bool headed, float* tile,
                uint32_t* near) {
  const auto distances = queries > kLanes ? panel_distances<2> : panel_distances<1>;
  distances(packed, constants, factors, bounds, base, stride, rows, n, headed, tile, near);
}

// A row's own codes as a query: centered, and halved to fit. floor((c - 127) / 2) is the rounded mean of c and 0, less 64.
int32_t halve(const uint8_t* codes, size_t n, int8_t* out) {
  int32_t sum = 0;
  size_t j = 0;
#if defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  __m128i sums = zero;
  for (; j + 16 <= n; j += 16) {
    const __m128i mean = _mm_avg_epu8(load_as<__m128i>(codes + j), zero);
    sums = _mm_add_epi32(sums, _mm_sad_epu8(mean, zero));
    store_as(out + j, _mm_sub_epi8(mean, _mm_set1_epi8(64)));
  }
  sum = _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums))) - 64 * static_cast<int32_t>(j);
#endif
  for (; j < n; ++j) {
    const int half = (codes[j] + 1) / 2 - 64;
    out[j] = static_cast<int8_t>(half);
    sum += half;
  }
  return sum;
}

// kVectors vectors of outputs of kQueries queries in registers: a part of the matrix is widened once for all of these.
template <size_t kQueries, size_t kVectors>
__attribute__((always_inline)) inline void project_part(const int16_t* queries, const int8_t* matrix, size_t dim,
                                                        size_t outputs, size_t first, int32_t* out) {
  Ints sum[kQueries][kVectors];
  NEARLY_UNROLL for (size_t q = 0; q < kQueries; ++q)
    NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) sum[q][v] = Ints{};
  for (size_t j = 0; j < dim; j += 2) {
    int32_t pair[kQueries], any = 0;
    NEARLY_UNROLL for (size_t q = 0; q < kQueries; ++q) any |= pair[q] = load_as<int32_t>(queries + q * dim + j);
    if (any == 0) continue;  // pictures and histograms are full of zeros
    const int8_t* m = matrix + (j / 2 * outputs + first) * 2;
    NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) {
      const Shorts wide = widen(m + v * kShorts);
      NEARLY_UNROLL for (size_t q = 0; q < kQueries; ++q) sum[q][v] += pair_products(wide, (Shorts)(Ints{} + pair[q]));
    }
  }
  NEARLY_UNROLL for (size_t q = 0; q < kQueries; ++q)
    NEARLY_UNROLL for (size_t v = 0; v < kVectors; ++v) store_as(out + q * outputs + first + v * kLanes, sum[q][v]);
}

template <size_t kQueries, size_t kVectors>
void project_some(const int16_t* queries, const int8_t* matrix, size_t dim, size_t outputs, size_t first, int32_t* out) {
  for (; first + kVectors * kLanes <= outputs; first += kVectors * kLanes)
    project_part<kQueries, kVectors>(queries, matrix, dim, outputs, first, out);
  if constexpr (kVectors > 1) project_some<kQueries, kVectors / 2>(queries, matrix, dim, outputs, first, out);
}

// out[q][p] = sum_j queries[q][j] * matrix[j][p], of n queries of dim numbers each.
void project_queries(const int16_t* queries, size_t n, const int8_t* matrix, size_t dim, size_t outputs, int32_t* out) {
  size_t q = 0;
  for (; q + 4 <= n; q += 4) project_some<4, kBytes == 64 ? 4 : 2>(queries + q * dim, matrix, dim, outputs, 0, out + q * outputs);
  for (; q < n; ++q) project_some<1, 8>(queries + q * dim, matrix, dim, outputs, 0, out + q * outputs);
}

float largest_magnitude(const float* x, size_t n) {
  Floats top{};
  size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Floats a = magnitude(load(x + j));
    top = a > top ? a : top;
  }
  float largest = 0;
  for (size_t i = 0; i < kLanes; ++i) largest = top[i] > largest ? top[i] : largest;
  for (; j < n; ++j) largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
  return largest;
}

// out = round(x * limit / max|x|), ties to even: adding 1.5 * 2^23 leaves the rounded integer in the low bits.
template <typename Out> float quantize(const float* x, size_t n, float limit, Out* out) {
  const float largest = largest_magnitude(x, n);
  const float scale = limit / largest, magic = 12582912.0f;
  if (!(scale <= 3e38f)) {  // no float holds the scale of values below 1e-34: they are 0 here, as their squares are
    memset(out, 0, n * sizeof *out);
    return 0;
  }
  for (size_t j = 0; j < n; ++j) {
    const float shifted = x[j] * scale + magic;
    out[j] = static_cast<Out>(load_as<int32_t>(&shifted) - 0x4B400000);
  }
  return largest / limit;
}

// True when all values are whole numbers in [low, high], which `out` then holds as bytes of two's complement.
bool whole_bytes(const float* x, size_t n, float low, float high, uint8_t* out) {
  const float magic = 12582912.0f;
  uint32_t bad = 0;
  for (size_t j = 0; j < n; ++j) {
    const float shifted = x[j] + magic;
    const float whole = shifted - magic;
    bad |= static_cast<uint32_t>(whole != x[j]) | static_cast<uint32_t>(x[j] < low) | static_cast<uint32_t>(x[j] > high);
    out[j] = static_cast<uint8_t>(load_as<int32_t>(&shifted));
  }
  return bad == 0;
}
