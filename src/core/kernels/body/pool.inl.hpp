// What a walk over a graph does beside distances. Nothing here guesses: where a candidate belongs, and whether a neighbor
// was met before, is as good as random, and a wrong guess costs more than the work that it would save.

// The order of floats as signed integers.
inline int32_t ordered(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// The last row may be written past the number that is returned: `out` has a place for it.
size_t unseen(const uint32_t* list, size_t degree, size_t n_nodes, uint64_t* seen, uint32_t* out) {
  size_t n = 0;
  for (size_t i = 0; i < degree; ++i) {
    const uint32_t v = __atomic_load_n(list + i, __ATOMIC_ACQUIRE);
    if (v >= n_nodes) {
      if (v == 0xffffffffu) break;
      continue;
    }
    uint64_t* word = seen + v / 64;
    const uint64_t before = *word, bit = uint64_t{1} << (v % 64);
    *word = before | bit;
    out[n] = v;
    n += !(before & bit);
  }
  return n;
}

// Few pass, as a rule: whole lanes are looked at for one that does. A list may be written meanwhile, a word at a time, which
// no load of x86 tears; C++ calls that a race, so ThreadSanitizer looks at the way of words.
size_t unseen_passing(const uint32_t* list, size_t degree, size_t n_bits, uint64_t* seen, const uint64_t* bits,
                      uint32_t* out) {
  size_t n = 0, i = 0;
  const auto take = [&](uint32_t v) {
    uint64_t* word = seen + v / 64;
    const uint64_t before = *word, bit = uint64_t{1} << (v % 64);
    *word = before | bit;
    out[n] = v;
    n += !(before & bit);
  };
#if defined(__AVX2__) && !defined(__SANITIZE_THREAD__)
  const auto* words = reinterpret_cast<const int*>(bits);  // of 32 bits: the order of bytes is the same
  const __m256i top = _mm256_set1_epi32(static_cast<int>(0x80000000u)), one = _mm256_set1_epi32(1);
  const __m256i limit = _mm256_xor_si256(_mm256_set1_epi32(static_cast<int>(n_bits)), top);
  for (; i + 8 <= degree; i += 8) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(list + i));
    const __m256i inside = _mm256_cmpgt_epi32(limit, _mm256_xor_si256(v, top));
    const __m256i word = _mm256_mask_i32gather_epi32(_mm256_setzero_si256(), words, _mm256_srli_epi32(v, 5), inside, 4);
    const __m256i bit = _mm256_and_si256(_mm256_srlv_epi32(word, _mm256_and_si256(v, _mm256_set1_epi32(31))), one);
    auto left = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32(bit, 31))));
    for (; left; left &= left - 1) {
      const uint32_t found = __atomic_load_n(list + i + static_cast<size_t>(__builtin_ctz(left)), __ATOMIC_ACQUIRE);
      if (found < n_bits) take(found);  // the list may be written meanwhile
    }
    if (__atomic_load_n(list + i + 7, __ATOMIC_ACQUIRE) == 0xffffffffu) return n;
  }
#endif
  for (; i < degree; ++i) {
    const uint32_t v = __atomic_load_n(list + i, __ATOMIC_ACQUIRE);
    if (v == 0xffffffffu) break;
    if (v < n_bits && bits[v / 64] >> (v % 64) & 1) take(v);
  }
  return n;
}

size_t within(const float* distances, const uint32_t* rows, size_t n, float bound, int64_t* out) {
  size_t kept = 0, i = 0;
#if defined(__AVX2__)
  const __m256 limit = _mm256_set1_ps(bound);
  for (; i + 8 <= n; i += 8) {
    const __m256 d = _mm256_loadu_ps(distances + i);
    auto left = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(d, limit, _CMP_NGT_UQ)));
    for (; left; left &= left - 1) {
      const size_t at = i + static_cast<size_t>(__builtin_ctz(left));
      out[kept++] = static_cast<int64_t>(ordered(distances[at])) << 32 | static_cast<int64_t>(rows[at]) << 1;
    }
  }
#endif
  for (; i < n; ++i) {
    out[kept] = static_cast<int64_t>(ordered(distances[i])) << 32 | static_cast<int64_t>(rows[i]) << 1;
    kept += !(distances[i] > bound);
  }
  return kept;
}

// How many of n words are less than one.
inline size_t count_less(const int64_t* words, size_t n, int64_t than) {
  size_t count = 0, i = 0;
#if defined(__AVX2__)
  const __m256i all = _mm256_set1_epi64x(than);
  for (; i + 4 <= n; i += 4) {
    const __m256i less = _mm256_cmpgt_epi64(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i)));
    count += static_cast<size_t>(__builtin_popcount(static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(less)))));
  }
#endif
  for (; i < n; ++i) count += words[i] < than;
  return count;
}

// The same of sorted words: by halves, then by counting.
inline size_t place(const int64_t* words, size_t n, int64_t than) {
  const int64_t* base = words;
  size_t left = n;
  while (left > 16) {
    const size_t half = left / 2;
    base += half & -static_cast<size_t>(base[half - 1] < than);
    left -= half;
  }
  return static_cast<size_t>(base - words) + count_less(base, left, than);
}

Merged merge(int64_t* pool, size_t size, size_t width, const int64_t* fresh, size_t n) {
  constexpr size_t kMost = 64;
  if (n > kMost) {  // in parts: a walk's first lists only
    Merged result{size, size};
    for (size_t i = 0; i < n; i += kMost) {
      const Merged part = merge(pool, result.size, width, fresh + i, n - i < kMost ? n - i : kMost);
      result = {part.size, part.first < result.first ? part.first : result.first};
    }
    return result;
  }
  int64_t sorted[kMost];
  size_t at[kMost];
  for (size_t i = 0; i < n; ++i) sorted[count_less(fresh, n, fresh[i])] = fresh[i];
  for (size_t i = 0; i < n; ++i) at[i] = place(pool, size, sorted[i]);
  while (n > 0 && at[n - 1] + n - 1 >= width) --n;
  if (n == 0) return {size, size};
  // Every candidate of the pool moves once: by the number of new ones before it.
  size_t end = size;
  for (size_t i = n; i-- > 0;) {
    const size_t by = i + 1;
    size_t from = end < width - by ? end : width - by;
    for (; from >= at[i] + 4; from -= 4) {
      int64_t four[4];
      memcpy(four, pool + from - 4, sizeof four);
      memcpy(pool + from - 4 + by, four, sizeof four);
    }
    for (; from > at[i]; --from) pool[from - 1 + by] = pool[from - 1];
    pool[at[i] + i] = sorted[i];
    end = at[i];
  }
  return {size + n < width ? size + n : width, at[0]};
}
