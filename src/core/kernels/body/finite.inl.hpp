// The first row that holds a NaN or an infinity: all exponent bits set. Written for the vectorizer.
template <typename Word, Word kExponent>
size_t first_nonfinite(const uint8_t* base, size_t stride, size_t n, size_t size) {
  for (size_t i = 0; i < n; ++i) {
    const Word* x = reinterpret_cast<const Word*>(base + i * stride);
    Word bad = 0;
    for (size_t j = 0; j < size; ++j) bad |= static_cast<Word>((x[j] & kExponent) == kExponent);
    if (bad) return i;
  }
  return n;
}
