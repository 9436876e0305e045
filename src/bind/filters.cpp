// Filters: which rows of a column pass.
#include "filters/spans.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/bits.hpp"
#include "columns.hpp"

namespace nearly::bind {
namespace {

namespace f = nearly::filters;

f::Stored stored_as(const HeldColumn::Values& values) {
  const nb::dlpack::dtype type = values.dtype();
  if (type.lanes == 1) {
    if (type == nb::dtype<bool>() || type == nb::dtype<uint8_t>()) return f::Stored::kUint8;
    if (type == nb::dtype<uint16_t>()) return f::Stored::kUint16;
    if (type == nb::dtype<int8_t>()) return f::Stored::kInt8;
    if (type == nb::dtype<int16_t>()) return f::Stored::kInt16;
    if (type == nb::dtype<int32_t>()) return f::Stored::kInt32;
    if (type == nb::dtype<int64_t>()) return f::Stored::kInt64;
    if (type == nb::dtype<double>()) return f::Stored::kFloat64;
  }
  throw nb::value_error("values: int8, int16, int32, int64, uint8, uint16, bool or float64");
}

const uint64_t* valid_bits(const HeldColumn::Bits& valid, size_t rows) {
  require(!valid || valid->shape(0) == (rows + 63) / 64, "valid: a bit a row");
  return valid ? valid->data() : nullptr;
}

// Whether spans ascend and do not overlap, NaN in none.
template <typename T> bool ascend(const In<T, 1>& low, const In<T, 1>& high) {
  bool right = low.shape(0) == high.shape(0);
  for (size_t i = 0; right && i < low.shape(0); ++i)
    right = low.data()[i] <= high.data()[i] && (i == 0 || high.data()[i - 1] < low.data()[i]);
  return right;
}

f::Spans spans_from(f::Stored stored, nb::handle low, nb::handle high) {
  const auto make = [&]<typename T>(const In<T, 1>& from, const In<T, 1>& to) {
    require(ascend(from, to), "test_spans: spans ascend");
    if constexpr (std::is_same_v<T, double>)
      return f::Spans(from.data(), to.data(), from.shape(0));
    else
      return f::Spans(stored, from.data(), to.data(), from.shape(0));
  };
  if (stored == f::Stored::kFloat64) return make(nb::cast<In<double, 1>>(low), nb::cast<In<double, 1>>(high));
  return make(nb::cast<In<int64_t, 1>>(low), nb::cast<In<int64_t, 1>>(high));
}

void test_spans(const HeldColumn& held, nb::handle low, nb::handle high, bool nulls, Out<uint64_t, 1> out, int joined,
                size_t threads) {
  require(out.shape(0) == (held.rows() + 63) / 64, "test_spans: out has a bit a row");
  require(joined >= 0 && joined <= static_cast<int>(f::Joined::kOr), "test_spans: joined is 0, 1 (and) or 2 (or)");
  const f::Spans spans = spans_from(held.stored(), low, high);
  nb::gil_scoped_release release;
  f::test_spans(held.column(), spans, nulls, static_cast<f::Joined>(joined), out.data(), threads);
}

void test_lists(HeldColumn::Values elements, int64_t code, In<int64_t, 1> offsets, bool inverted, HeldColumn::Bits valid,
                Out<uint64_t, 1> out, size_t threads) {
  const f::Stored stored = stored_as(elements);
  require(offsets.shape(0) >= 1 && stored != f::Stored::kFloat64, "test_lists: offsets of lists of codes");
  const size_t rows = offsets.shape(0) - 1;
  require(out.shape(0) == (rows + 63) / 64, "test_lists: out has a bit a row");
  if (rows == 0) return;
  const uint64_t* bits = valid_bits(valid, rows);
  nb::gil_scoped_release release;
  const int64_t* ends = offsets.data();
  bool ascend = ends[0] == 0 && ends[rows] == static_cast<int64_t>(elements.shape(0));
  for (size_t i = 0; i < rows; ++i) ascend &= ends[i] <= ends[i + 1];
  if (!ascend) throw std::invalid_argument("test_lists: offsets ascend from 0 to the number of elements");
  f::test_lists(elements.data(), f::Spans(stored, &code, &code, 1), ends, rows, bits, inverted, out.data(), threads);
}

void set_bits(In<uint32_t, 1> rows, Out<uint64_t, 1> bits) {
  const uint32_t* end = rows.data() + rows.shape(0);
  const uint32_t* last = std::max_element(rows.data(), end);
  require(last == end || *last / 64 < bits.shape(0), "set_bits: rows beyond the bits");
  f::set_bits(rows.data(), rows.shape(0), bits.data());
}

}  // namespace

HeldColumn::HeldColumn(Values values, Bits valid, Kind kind, std::optional<In<int64_t, 1>> offsets,
                       std::optional<In<uint8_t, 1>> octets)
    : values_(std::move(values)), valid_(std::move(valid)), kind_(kind), offsets_(std::move(offsets)),
      octets_(std::move(octets)), stored_(stored_as(values_)) {
  valid_bits(valid_, rows());
  using S = f::Stored;
  const bool whole = stored_ != S::kFloat64;
  const bool places = stored_ == S::kUint8 || stored_ == S::kUint16 || stored_ == S::kInt32;
  require(kind == Kind::kOther || (kind == Kind::kFloat) == !whole, "Column: values are not of this kind");
  require(kind != Kind::kText || (places && offsets_ && octets_), "Column: text is places among texts");
  if (kind != Kind::kText) return;
  const size_t n = offsets_->shape(0);
  const int64_t* ends = offsets_->data();
  require(n >= 1 && ends[0] == 0 && ends[n - 1] == static_cast<int64_t>(octets_->shape(0)) && std::is_sorted(ends, ends + n),
          "Column: offsets ascend from 0 to the number of octets");
}

f::Column HeldColumn::column() const {
  std::call_once(found_, [&] { zones_ = f::zones_of(stored_, values_.data(), rows()); });
  return {values_.data(), rows(), valid_ ? valid_->data() : nullptr, &zones_};
}

std::pair<size_t, bool> HeldColumn::place(const char* text, size_t bytes) const {
  const auto compare = [&](size_t i) {  // a text with this one, by octets
    const int64_t begin = offsets_->data()[i];
    const auto length = static_cast<size_t>(offsets_->data()[i + 1] - begin);
    const int first = std::memcmp(octets_->data() + begin, text, std::min(length, bytes));
    return first ? first : length < bytes ? -1 : static_cast<int>(length > bytes);
  };
  size_t low = 0, high = offsets_->shape(0) - 1;
  const size_t n = high;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (compare(middle) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return {low, low < n && compare(low) == 0};
}

void filters(nb::module_& m) {
  nb::class_<HeldColumn>(m, "Column", "A column of metadata, looked at once.")
      .def(
          "__init__",
          [](HeldColumn* self, HeldColumn::Values values, HeldColumn::Bits valid, int kind,
             std::optional<In<int64_t, 1>> offsets, std::optional<In<uint8_t, 1>> octets) {
            require(kind >= 0 && kind <= static_cast<int>(HeldColumn::Kind::kText), "Column: a kind is 0 to 4");
            new (self) HeldColumn(std::move(values), std::move(valid), static_cast<HeldColumn::Kind>(kind),
                                  std::move(offsets), std::move(octets));
          },
          "values"_a.noconvert(), "valid"_a.noconvert() = nb::none(), "kind"_a = 0, "offsets"_a.noconvert() = nb::none(),
          "octets"_a.noconvert() = nb::none(),
          nb::sig("def __init__(self, values: numpy.typing.NDArray[numpy.generic], "
                  "valid: numpy.typing.NDArray[numpy.uint64] | None = None, kind: int = 0, "
                  "offsets: numpy.typing.NDArray[numpy.int64] | None = None, "
                  "octets: numpy.typing.NDArray[numpy.uint8] | None = None) -> None"))
      .def("test", &test_spans, "low"_a, "high"_a, "nulls"_a, "out"_a.noconvert(), "joined"_a = 0, "threads"_a = 0,
           nb::sig("def test(self, low: numpy.typing.NDArray[numpy.generic], high: numpy.typing.NDArray[numpy.generic], "
                   "nulls: bool, out: numpy.typing.NDArray[numpy.uint64], joined: int = 0, threads: int = 0) -> None"),
           "Set the bits of rows whose value is in spans, joined with what is there.");
  m.def("test_lists", &test_lists, "elements"_a.noconvert(), "code"_a, "offsets"_a.noconvert(), "inverted"_a,
        "valid"_a.noconvert().none(), "out"_a.noconvert(), "threads"_a = 0,
        nb::sig("def test_lists(elements: numpy.typing.NDArray[numpy.generic], code: int, "
                "offsets: numpy.typing.NDArray[numpy.int64], inverted: bool, "
                "valid: numpy.typing.NDArray[numpy.uint64] | None, out: numpy.typing.NDArray[numpy.uint64], "
                "threads: int = 0) -> None"));
  m.def("set_bits", &set_bits, "rows"_a.noconvert(), "bits"_a.noconvert());
  m.def("count_bits", [](In<uint64_t, 1> bits) { return count_set(bits.data(), bits.shape(0)); }, "bits"_a.noconvert());
  conditions(m);
}

}  // namespace nearly::bind
