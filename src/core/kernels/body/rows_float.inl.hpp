// Distances from one float query to rows of any element type.
// Four rows a pass share the query's loads; a row's sums run in the same order alone or in company, so an answer never
// depends on the block that it was computed in.
struct L2 {
  static Floats step(Floats q, Floats x, Floats sum) { const Floats d = q - x; return fma(d, d, sum); }
  static float step(float q, float x, float sum) { return sum + (q - x) * (q - x); }
  static float last(float sum) { return sum; }
};
struct Dot {
  static Floats step(Floats q, Floats x, Floats sum) { return fma(q, x, sum); }
  static float step(float q, float x, float sum) { return sum + q * x; }
  static float last(float sum) { return 0.0f - sum; }  // never -0.0, which looks like a mistake
};
// Half the squared distance of unit vectors is 1 - cos, and exactly 0 for a vector and itself. Rows are stored as they
// came, followed by a float: 1 / norm, or 0 for the zero vector, whose similarity to everything is 0 by definition.
struct Cosine : L2 {
  static float last(float sum) { return 0.5f * sum; }
};
struct L1 {
  static Floats step(Floats q, Floats x, Floats sum) { return sum + magnitude(q - x); }
  static float step(float q, float x, float sum) { return sum + fabsf(q - x); }
  static float last(float sum) { return sum; }
};

template <typename A, typename B> constexpr bool kSame = false;
template <typename A> constexpr bool kSame<A, A> = true;

template <typename Distance, typename Stored, size_t kRows>
__attribute__((always_inline)) inline void float_block(const float* query, const uint8_t* const* row, size_t dim, float* out) {
  constexpr bool kScaled = kSame<Distance, Cosine>;
  Floats even[kRows], odd[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) even[r] = odd[r] = Floats{};
  float scale[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r)
    scale[r] = kScaled ? load_as<float>(row[r] + (dim * sizeof(Stored) + 3) / 4 * 4) : 1.0f;
  const auto stored = [&](const Stored* x, size_t r) { return kScaled ? load(x) * splat(scale[r]) : load(x); };
  size_t j = 0;
  for (; j + 2 * kLanes <= dim; j += 2 * kLanes) {
    const Floats q0 = load(query + j), q1 = load(query + j + kLanes);
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
      const Stored* x = reinterpret_cast<const Stored*>(row[r]) + j;
      even[r] = Distance::step(q0, stored(x, r), even[r]);
      odd[r] = Distance::step(q1, stored(x + kLanes, r), odd[r]);
    }
  }
  if (j + kLanes <= dim) {
    const Floats q0 = load(query + j);
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r)
      even[r] = Distance::step(q0, stored(reinterpret_cast<const Stored*>(row[r]) + j, r), even[r]);
    j += kLanes;
  }
  float sum[kRows];
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) even[r] += odd[r];
  if constexpr (kRows == 4)
    reduce4(even, sum);
  else
    sum[0] = reduce(even[0]);
  for (; j < dim; ++j)
    NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r) {
      const float x = one(reinterpret_cast<const Stored*>(row[r]) + j);
      sum[r] = Distance::step(query[j], kScaled ? x * scale[r] : x, sum[r]);
    }
  NEARLY_UNROLL for (size_t r = 0; r < kRows; ++r)
    out[r] = kScaled && scale[r] == 0.0f ? 1.0f : Distance::last(sum[r]);
}

template <typename Distance, typename Stored>
void float_rows(const void* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t dim,
                float* out) {
  const float* q = static_cast<const float*>(query);
  const uint8_t* row[4];
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t r = 0; r < 4; ++r) row[r] = row_at(base, stride, rows, i + r);
    float_block<Distance, Stored, 4>(q, row, dim, out + i);
  }
  for (; i < n; ++i) {
    row[0] = row_at(base, stride, rows, i);
    float_block<Distance, Stored, 1>(q, row, dim, out + i);
  }
}
