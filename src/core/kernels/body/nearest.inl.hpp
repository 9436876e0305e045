// The nearest of many centers, for many rows: products of a block of rows with one panel of centers after the other, and
// what is best so far in each lane. Nearest is where <x, c> - |c|^2 / 2 is largest; of equals the first center wins.
constexpr size_t kNearestRows = 24;

void nearest(const float* rows, size_t row_stride, size_t n, const float* packed, const float* halves, size_t dim,
             size_t panels, uint32_t* label, float* value) {
  Floats best[kNearestRows];
  Ints at[kNearestRows];
  float tile[kNearestRows * kPanel];
  Ints lane;
  for (size_t i = 0; i < kLanes; ++i) lane[i] = static_cast<int32_t>(i);
  for (; n > 0; rows += kNearestRows * row_stride, label += kNearestRows, value += kNearestRows) {
    const size_t block = n < kNearestRows ? n : kNearestRows;
    for (size_t p = 0; p < panels; ++p) {
      panel_products(rows, row_stride, block, packed + p * kPanel * dim, dim, tile, kPanel);
      const Floats left_half = load(halves + p * kPanel), right_half = load(halves + p * kPanel + kLanes);
      const Ints left = lane + static_cast<int32_t>(p * kPanel), right = left + static_cast<int32_t>(kLanes);
      for (size_t r = 0; r < block; ++r) {
        const Floats a = load(tile + r * kPanel) - left_half, b = load(tile + r * kPanel + kLanes) - right_half;
        const Ints second = b > a;
        const Floats better = second ? b : a;
        const Ints where = second ? right : left;
        const Ints wins = p == 0 ? ~Ints{} : better > best[r];
        best[r] = wins ? better : best[r];
        at[r] = wins ? where : at[r];
      }
    }
    for (size_t r = 0; r < block; ++r) {
      float most = best[r][0];
      int32_t first = at[r][0];
      for (size_t i = 1; i < kLanes; ++i) {
        const bool wins = best[r][i] > most || (best[r][i] == most && at[r][i] < first);
        most = wins ? best[r][i] : most;
        first = wins ? at[r][i] : first;
      }
      label[r] = static_cast<uint32_t>(first);
      value[r] = most;
    }
    n -= block;
  }
}
