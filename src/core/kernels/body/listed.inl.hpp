// Scans of lists by residual codes: blocks of 32 slots as `fastscan` has them, each followed by 32 scales and 32 numbers to
// add. Sums are whole numbers and the rest is one product and sums in order, so distances are equal on every target.
size_t scan_listed(const uint8_t* tables, const uint8_t* blocks, size_t groups, uint32_t first, size_t n, float base,
                   float step, float offset, float bound, int64_t* out) {
  const size_t bytes = groups * 16;
  const Floats from = splat(base), unit = splat(step), shift = splat(offset), limit = splat(bound);
  size_t kept = 0;
  for (size_t i = 0; i < n; i += 32, blocks += bytes + 256) {
    alignas(64) uint16_t sums[32];
    alignas(64) float distance[32];
    fastscan(tables, blocks, groups, 1, sums);
    uint32_t near = 0;
    NEARLY_UNROLL for (size_t r = 0; r < 32; r += kLanes) {
      const Floats sum = __builtin_convertvector((Ints)widen_to_lanes(sums + r), Floats);
      const Floats scale = load_as<Floats>(blocks + bytes + r * 4), add = load_as<Floats>(blocks + bytes + 128 + r * 4);
      const Floats d = (from + add) + scale * (unit * sum + shift);
      store_as(distance + r, d);
      near |= not_below(limit, d) << r;
    }
    if (n - i < 32) near &= (1u << (n - i)) - 1;
    for (; near; near &= near - 1) {
      const auto r = static_cast<uint32_t>(__builtin_ctz(near));
      const float d = distance[r] == distance[r] ? distance[r] : __builtin_inff();
      out[kept++] = static_cast<int64_t>(ordered(d)) << 32 | static_cast<int64_t>(first + i + r) << 1;
    }
  }
  return kept;
}

// out[b * 16 + w] = <part b of z, codeword w of book b>, `width` numbers each; codewords[(b * width + j) * 16 + w] is
// number j of codeword w.
void lookups(const float* z, const float* codewords, size_t books, size_t width, float* out) {
  for (size_t b = 0; b < books; ++b, out += 16) {
    Floats sum[16 / kLanes];
    NEARLY_UNROLL for (size_t v = 0; v < 16 / kLanes; ++v) sum[v] = Floats{};
    for (size_t j = 0; j < width; ++j, codewords += 16) {
      const Floats x = splat(*z++);
      NEARLY_UNROLL for (size_t v = 0; v < 16 / kLanes; ++v) sum[v] += x * load(codewords + v * kLanes);
    }
    NEARLY_UNROLL for (size_t v = 0; v < 16 / kLanes; ++v) store_as(out + v * kLanes, sum[v]);
  }
}

// Tables of bytes of books of 16 numbers: out = round((x - least of its book) / step), ties to even. Returns the step, the
// widest range of a book by 255; `least` becomes the sum of the least.
float byte_tables(const float* x, size_t books, uint8_t* out, float* least) {
  float low[256], range = 0, total = 0;
  for (size_t b = 0; b < books; ++b) {
    const float* of = x + b * 16;
    float a[kLanes], c[kLanes];
    Floats least_lanes = load(of), most_lanes = least_lanes;
    for (size_t v = 1; v < 16 / kLanes; ++v) {
      const Floats next = load(of + v * kLanes);
      least_lanes = next < least_lanes ? next : least_lanes;
      most_lanes = next > most_lanes ? next : most_lanes;
    }
    store_as(a, least_lanes);
    store_as(c, most_lanes);
    float high = c[0];
    low[b] = a[0];
    for (size_t l = 1; l < kLanes; ++l) {
      low[b] = a[l] < low[b] ? a[l] : low[b];
      high = c[l] > high ? c[l] : high;
    }
    range = high - low[b] > range ? high - low[b] : range;
    total += low[b];
  }
  *least = total;
  const float scale = range > 0 && 255.0f / range <= 3e38f ? 255.0f / range : 0.0f, magic = 12582912.0f;
  for (size_t b = 0; b < books; ++b)
    for (size_t w = 0; w < 16; ++w) {
      const float shifted = (x[b * 16 + w] - low[b]) * scale + magic;
      const auto whole = load_as<uint32_t>(&shifted) - 0x4B400000u;
      out[b * 16 + w] = static_cast<uint8_t>(whole < 255 ? whole : 255);
    }
  return scale > 0 ? range / 255.0f : 0.0f;
}
