// How well the codes of one scale point in a direction: with k = min(floor(scale * a[j]), top) for n magnitudes a,
// out[0] = sum (k + 1/2) * a[j] and out[1] = sum (k + 1/2)^2, so that out[0]^2 / out[1] is their squared cosine times |a|^2.
// n is a multiple of 16. Sixteen sums on every target, added up in one order: the same bits on all.
void sweep(const float* a, size_t n, float scale, float top, float* out) {
  constexpr size_t kSums = 16 / kLanes;
  const Floats scales = splat(scale), most = splat(top), half = splat(0.5f);
  Floats product[kSums], square[kSums];
  NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) product[i] = square[i] = Floats{};
  for (size_t j = 0; j < n; j += 16)
    NEARLY_UNROLL for (size_t i = 0; i < kSums; ++i) {
      const Floats x = load(a + j + i * kLanes), scaled = x * scales;
      const Floats inside = scaled < most ? scaled : most;  // before it is made whole: no number is too large then
      const Floats u = __builtin_convertvector(__builtin_convertvector(inside, Ints), Floats) + half;
      product[i] += u * x;
      square[i] += u * u;
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
