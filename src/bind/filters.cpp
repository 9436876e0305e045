// Filters: which rows of a column pass.
#include "filters/spans.hpp"

#include <limits>

#include "bind.hpp"

namespace nearly::bind {
namespace {

namespace f = nearly::filters;
using Values = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bits = std::optional<In<uint64_t, 1>>;

f::Stored stored_as(const Values& values) {
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

const uint64_t* valid_bits(const Bits& valid, size_t rows) {
  require(!valid || valid->shape(0) == (rows + 63) / 64, "valid: a bit a row");
  return valid ? valid->data() : nullptr;
}

// Whole numbers that a column may hold; spans must not go beyond.
std::pair<int64_t, int64_t> limits(f::Stored stored) {
  const size_t bits = 8 * f::stored_bytes(stored);
  const bool positive = stored == f::Stored::kUint8 || stored == f::Stored::kUint16;
  if (positive) return {0, (int64_t{1} << bits) - 1};
  const auto top = static_cast<int64_t>((uint64_t{1} << (bits - 1)) - 1);
  return {-top - 1, top};
}

void test_spans(Values values, nb::object low, nb::object high, bool inverted, bool nulls, Bits valid, Out<uint64_t, 1> out,
                size_t threads) {
  const f::Column column{stored_as(values), values.data(), values.shape(0), valid_bits(valid, values.shape(0))};
  require(out.shape(0) == (column.n + 63) / 64, "test_spans: out has a bit a row");
  const auto run = [&](auto from, auto to, auto least, auto most) {
    const size_t n = from.shape(0);
    require(to.shape(0) == n, "test_spans: low and high disagree");
    for (size_t i = 0; i < n; ++i)
      require(from.data()[i] <= to.data()[i] && from.data()[i] >= least && to.data()[i] <= most &&
                  (i == 0 || to.data()[i - 1] < from.data()[i]), "test_spans: spans ascend within what values may be");
    nb::gil_scoped_release release;
    f::test_spans(column, f::Spans(from.data(), to.data(), n), inverted, nulls, out.data(), threads);
  };
  if (column.n == 0) return;
  if (column.stored == f::Stored::kFloat64) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    run(nb::cast<In<double, 1>>(low), nb::cast<In<double, 1>>(high), -kInfinity, kInfinity);
  } else {
    const auto [least, most] = limits(column.stored);
    run(nb::cast<In<int64_t, 1>>(low), nb::cast<In<int64_t, 1>>(high), least, most);
  }
}

void test_lists(Values elements, int64_t code, In<int64_t, 1> offsets, bool inverted, Bits valid, Out<uint64_t, 1> out,
                size_t threads) {
  const f::Column column{stored_as(elements), elements.data(), elements.shape(0), nullptr};
  require(offsets.shape(0) >= 1 && column.stored != f::Stored::kFloat64, "test_lists: offsets of lists of codes");
  const size_t rows = offsets.shape(0) - 1;
  const auto [least, most] = limits(column.stored);
  require(out.shape(0) == (rows + 63) / 64 && code >= least && code <= most, "test_lists: out has a bit a row");
  if (rows == 0) return;
  const uint64_t* bits = valid_bits(valid, rows);
  nb::gil_scoped_release release;
  const int64_t* ends = offsets.data();
  bool ascend = ends[0] == 0 && ends[rows] == static_cast<int64_t>(column.n);
  for (size_t i = 0; i < rows; ++i) ascend &= ends[i] <= ends[i + 1];
  if (!ascend) throw std::invalid_argument("test_lists: offsets ascend from 0 to the number of elements");
  f::test_lists(column, code, ends, rows, bits, inverted, out.data(), threads);
}

}  // namespace

void filters(nb::module_& m) {
  m.def("test_spans", &test_spans, "values"_a.noconvert(), "low"_a, "high"_a, "inverted"_a, "nulls"_a,
        "valid"_a.noconvert().none(), "out"_a.noconvert(), "threads"_a = 0,
        nb::sig("def test_spans(values: numpy.typing.NDArray[numpy.generic], low: numpy.typing.NDArray[numpy.generic], "
                "high: numpy.typing.NDArray[numpy.generic], inverted: bool, nulls: bool, "
                "valid: numpy.typing.NDArray[numpy.uint64] | None, out: numpy.typing.NDArray[numpy.uint64], "
                "threads: int = 0) -> None"));
  m.def("test_lists", &test_lists, "elements"_a.noconvert(), "code"_a, "offsets"_a.noconvert(), "inverted"_a,
        "valid"_a.noconvert().none(), "out"_a.noconvert(), "threads"_a = 0,
        nb::sig("def test_lists(elements: numpy.typing.NDArray[numpy.generic], code: int, "
                "offsets: numpy.typing.NDArray[numpy.int64], inverted: bool, "
                "valid: numpy.typing.NDArray[numpy.uint64] | None, out: numpy.typing.NDArray[numpy.uint64], "
                "threads: int = 0) -> None"));
  m.def("count_bits", [](In<uint64_t, 1> bits) { return f::count(bits.data(), bits.shape(0)); }, "bits"_a.noconvert());
}

}  // namespace nearly::bind
