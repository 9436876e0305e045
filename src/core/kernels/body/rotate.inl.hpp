// A random rotation in O(n log n): four rounds of random signs and a fast Hadamard transform (Ailon & Chazelle, SIAM J.
// Computing 2009), which a step of Kac's walk joins to the coordinates that a power of two leaves over; the scheme of
// VectorDB-NTU/RaBitQ-Library. The same sums in the same order on every target, so the same bits.
template <size_t kStep> inline Floats butterfly_within(Floats x) {
  Ints from, minus;
  for (size_t i = 0; i < kLanes; ++i) {
    from[i] = static_cast<int32_t>(i ^ kStep);
    minus[i] = i & kStep ? static_cast<int32_t>(0x80000000u) : 0;
  }
#if defined(__clang__)
  Floats swapped;
  for (size_t i = 0; i < kLanes; ++i) swapped[i] = x[i ^ kStep];
#else
  const Floats swapped = __builtin_shuffle(x, from);
#endif
  return swapped + (Floats)((Ints)x ^ minus);
}

// Scaled to keep norms; n is a power of two and at least 64.
void hadamard(float* x, size_t n) {
  const Floats scale = splat(1.0f / sqrtf(static_cast<float>(n)));
  for (size_t i = 0; i < n; i += kLanes) {
    Floats v = butterfly_within<2>(butterfly_within<1>(load(x + i) * scale));
    if constexpr (kLanes > 4) v = butterfly_within<4>(v);
    if constexpr (kLanes > 8) v = butterfly_within<8>(v);
    store_as(x + i, v);
  }
  size_t step = kLanes;
  for (; 2 * step < n; step *= 4)  // two steps on the way through memory
    for (size_t first = 0; first < n; first += 4 * step)
      for (size_t i = first; i < first + step; i += kLanes) {
        const Floats a = load(x + i), b = load(x + i + step), c = load(x + i + 2 * step), d = load(x + i + 3 * step);
        const Floats ab = a + b, less_ab = a - b, cd = c + d, less_cd = c - d;
        store_as(x + i, ab + cd);
        store_as(x + i + step, less_ab + less_cd);
        store_as(x + i + 2 * step, ab - cd);
        store_as(x + i + 3 * step, less_ab - less_cd);
      }
  if (step < n)
    for (size_t i = 0; i < step; i += kLanes) {
      const Floats a = load(x + i), b = load(x + i + step);
      store_as(x + i, a + b);
      store_as(x + i + step, a - b);
    }
}

void flip_signs(float* x, const uint64_t* signs, size_t n) {
  Words place;
  for (size_t j = 0; j < kLanes; ++j) place[j] = 1u << j;
  for (size_t i = 0; i < n; i += kLanes) {
    const Words bits = Words{} + static_cast<uint32_t>(signs[i / 64] >> (i % 64));
    store_as(x + i, (Words)load(x + i) ^ ((Words)((bits & place) == place) & 0x80000000u));
  }
}

void rotate(float* x, const uint64_t* signs, size_t n) {
  size_t power = 64;
  while (power * 2 <= n) power *= 2;
  for (size_t round = 0; round < 4; ++round) {
    flip_signs(x, signs + round * (n / 64), n);
    hadamard(x + (round % 2 ? n - power : 0), power);
    if (power == n) continue;
    const Floats scale = splat(round % 2 ? 0.5f : 1.0f);  // two steps lengthen everything to twice its size
    for (size_t i = 0; i < n / 2; i += kLanes) {
      const Floats a = load(x + i) * scale, b = load(x + n / 2 + i) * scale;
      store_as(x + i, a + b);
      store_as(x + n / 2 + i, a - b);
    }
  }
}
