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

// The least and the greatest value of each kZone rows, in the order of whole numbers. Rows often come in the order of some
// column, of time mostly: then spans settle nearly all zones, and their rows are not read.
struct Zones {
  static constexpr size_t kRows = 1024;
  std::vector<int64_t> low, high;
};
Zones zones_of(Stored stored, const void* values, size_t n);
enum class Verdict : int { kNone, kSome, kAll };

// What a set of rows becomes where others are found: these, what is in both, what is in one.
enum class Joined : int { kAlone, kAnd, kOr };

// A set of the values that a column may hold: ascending spans that do not touch, ends included. What they hold beyond that
// counts for nothing.
class Spans {
 public:
  Spans(Stored stored, const int64_t* low, const int64_t* high, size_t n);
  Spans(const double* low, const double* high, size_t n);

  // A bit a value, in (n + 63) / 64 words; anything past n.
  void inside(const void* values, size_t n, uint64_t* bits) const;
  // How many of the values between two ends are inside.
  Verdict within(int64_t low, int64_t high) const;
  Stored stored() const { return stored_; }

 private:
  template <typename T>
  void keep(const T* low, const T* high, size_t n, T least, T most, std::vector<T>& lows, std::vector<T>& highs);
  void set_buckets();
  template <typename T> uint64_t look_up_word(const T* values) const;
  template <typename T> void look_up(const T* values, size_t n, uint64_t* bits) const;

  Stored stored_;
  bool outside_ = false;  // the spans below are those between: of a set of nearly all values, fewer
  std::vector<double> float_low_, float_high_;
  std::vector<int64_t> low_, high_;  // the same as whole numbers in the same order
  // Many spans are met by a table: the values from the first to the last fall into buckets of equal width, and each says
  // whether spans cover all of it, or a part, and then which is the first there. One more bucket is for values beyond.
  int shift_ = 0;
  std::vector<uint8_t> buckets_;
  std::vector<uint32_t> first_;
};

// One column; `valid` has a bit for each row that has a value, or is null where all have. `zones` may be null.
struct Column {
  const void* values;
  size_t n;
  const uint64_t* valid;
  const Zones* zones;
};

// bits = rows whose value is in the spans, and rows without a value where `nulls` says so, joined with what bits held. What
// that settles already is not read.
void test_spans(const Column& column, const Spans& spans, bool nulls, Joined joined, uint64_t* bits, size_t threads);

struct Test {
  Column column;
  Spans spans;
};
// bits = rows whose value is in the spans of every test: one at least, of columns of as many rows.
void test_all(const std::vector<Test>& tests, uint64_t* bits, size_t threads);

// bits = rows i of which one element, offsets[i] to offsets[i + 1], is in the spans, or none is when `inverted`; no row
// without a value. offsets has rows + 1 entries, ascending to the number of elements.
void test_lists(const void* elements, const Spans& spans, const int64_t* offsets, size_t rows, const uint64_t* valid,
                bool inverted, uint64_t* bits, size_t threads);

// Sets the bits of rows.
void set_bits(const uint32_t* rows, size_t n, uint64_t* bits);

}  // namespace nearly::filters
