// Which rows of a column pass: values in spans of its order, and lists with an element.
#pragma once
#include <cstdint>
#include <vector>

#include "base/threads.hpp"

namespace nearly::filters {

// How the values of a column are stored. Bool is kUint8.
enum class Stored : int { kInt8, kInt16, kInt32, kInt64, kUint8, kUint16, kFloat64 };
constexpr size_t stored_bytes(Stored stored) {
  constexpr size_t kBytes[] = {1, 2, 4, 8, 1, 2, 8};
  return kBytes[static_cast<size_t>(stored)];
}

// A set of values: ascending spans that do not touch, ends included, none beyond what the column's values can be.
class Spans {
 public:
  Spans(const int64_t* low, const int64_t* high, size_t n);
  Spans(const double* low, const double* high, size_t n);

  // A bit a value, in (n + 63) / 64 words; zero past n.
  void inside(Stored stored, const void* values, size_t n, uint64_t* bits) const;

 private:
  void set_buckets();
  template <typename T> uint64_t look_up_word(const T* values) const;
  template <typename T> void look_up(const T* values, size_t n, uint64_t* bits) const;

  std::vector<double> float_low_, float_high_;
  std::vector<int64_t> low_, high_;  // the same as whole numbers in the same order
  // Many spans are met by a table: the values from the first to the last fall into buckets of equal width, and each says
  // whether spans cover all of it, or a part, and then which is the first there. One more bucket is for values beyond.
  int shift_ = 0;
  std::vector<uint8_t> buckets_;
  std::vector<uint32_t> first_;
};

// One column; `valid` has a bit for each row that has a value, or is null where all have.
struct Column {
  Stored stored;
  const void* values;
  size_t n;
  const uint64_t* valid;
};

// bits = rows whose value is in the spans, or is not when `inverted`, and rows without a value where `nulls` says so.
void test_spans(const Column& column, const Spans& spans, bool inverted, bool nulls, uint64_t* bits, size_t threads);

// bits = rows i of which one element, offsets[i] to offsets[i + 1], is `code`, or none is when `inverted`; no row without
// a value. `elements` are the elements of all rows, offsets has rows + 1 entries, ascending to their number.
void test_lists(const Column& elements, int64_t code, const int64_t* offsets, size_t rows, const uint64_t* valid,
                bool inverted, uint64_t* bits, size_t threads);

// Bits that are set.
size_t count(const uint64_t* bits, size_t words);

}  // namespace nearly::filters
