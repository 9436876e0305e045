// How well the codes of one scale point in a direction: with k = min(floor(scale * a[j]), top) for the magnitudes a,
// out[0] = sum weight * (k + 1/2) * a[j] and out[1] = sum weight * (k + 1/2)^2, so that out[0]^2 / out[1] is their squared
// cosine times |a|^2 (where all weights are 1). Each unit of 64 has its top and its weight. Sixteen sums on every target,
// added up in one order: the same bits on all.
void sweep(const float* a, size_t units, float scale, const float* tops, const float* weights, float* out) {
  constexpr size_t kSums = 16 / kLanes;
  const Floats scales = splat(scale), half = splat(0.5f);
  Floats product[kSums], square[kSums];
  NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) product[i] = square[i] = Floats{};
  for (size_t u = 0; u < units; ++u, a += 64) {
    const Floats most = splat(tops[u]), weight = splat(weights[u]);
    Floats along[kSums], length[kSums];
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) along[i] = length[i] = Floats{};
    for (size_t j = 0; j < 64; j += 16)
      NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
        const Floats x = load(a + j + i * kLanes), scaled = x * scales;
        const Floats inside = scaled < most ? scaled : most;  // before it is made whole: no number is too large then
        const Floats k = __builtin_convertvector(__builtin_convertvector(inside, Ints), Floats) + half;
        along[i] += k * x;
        length[i] += k * k;
      }
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
      product[i] += weight * along[i];
      square[i] += weight * length[i];
    }
  }
  float sums[2][16];
  memcpy(sums[0], product, sizeof sums[0]);
  memcpy(sums[1], square, sizeof sums[1]);
  for (size_t s = 0; s < 2; ++s) {
    for (size_t width = 8; width > 0; width /= 2)
      for (size_t i = 0; i < width; ++i) sums[s][i] += sums[s][i + width];
    out[s] = sums[s][0];
  }
}
