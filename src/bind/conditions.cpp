// Filters that are plain dicts, read and evaluated without Python: under each column a constant, or comparisons with
// constants. Most are; whatever else comes, and what is wrong, is left to Python.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/bits.hpp"
#include "columns.hpp"

namespace nearly::bind {
namespace {

namespace f = nearly::filters;
using Kind = HeldColumn::Kind;

// The first value of a column's type that is not below a constant, and whether it is equal.
template <typename T> struct Place {
  T at;
  bool exact = true;
};

template <typename T> struct Ends;
template <> struct Ends<int64_t> {
  static constexpr int64_t kFirst = std::numeric_limits<int64_t>::min(), kLast = std::numeric_limits<int64_t>::max();
  static int64_t after(int64_t x) { return x + 1; }
  static int64_t before(int64_t x) { return x - 1; }
};
template <> struct Ends<double> {
  static constexpr double kLast = std::numeric_limits<double>::infinity(), kFirst = -kLast;
  static double after(double x) { return std::nextafter(x, kLast); }
  static double before(double x) { return std::nextafter(x, kFirst); }
};

// Values that meet all conditions so far.
template <typename T> struct Span : Ends<T> {
  using Ends<T>::kFirst, Ends<T>::kLast, Ends<T>::after, Ends<T>::before;
  T low = kFirst, high = kLast;
  bool empty = false;

  void above(T x) { low = std::max(low, x); }
  void below(T x) { high = std::min(high, x); }
  // Narrows it to what compares so; false where this is no such operator.
  bool keep(std::string_view comparison, const Place<T>& place) {
    const bool last = place.exact && place.at == kLast, first = place.at == kFirst;
    if (comparison == "$eq") {
      empty |= !place.exact;
      above(place.at), below(place.at);
    } else if (comparison == "$gte") {
      above(place.at);
    } else if (comparison == "$gt") {
      empty |= last;
      if (!last) above(place.exact ? after(place.at) : place.at);
    } else if (comparison == "$lte") {
      empty |= first && !place.exact;
      below(place.exact || first ? place.at : before(place.at));
    } else if (comparison == "$lt") {
      empty |= first;
      if (!first) below(before(place.at));
    } else {
      return false;
    }
    return true;
  }
};

std::optional<Place<int64_t>> whole_place(const HeldColumn& column, PyObject* value) {
  if (column.kind() == Kind::kBool) {
    if (!PyBool_Check(value)) return std::nullopt;
    return Place<int64_t>{value == Py_True};
  }
  if (column.kind() == Kind::kWhole) {
    int overflow = 0;
    if (!PyLong_CheckExact(value)) return std::nullopt;
    const long long x = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return std::nullopt;
    return Place<int64_t>{x};
  }
  if (!PyUnicode_CheckExact(value)) return std::nullopt;
  Py_ssize_t bytes = 0;
  const char* text = PyUnicode_AsUTF8AndSize(value, &bytes);
  if (!text) return PyErr_Clear(), std::nullopt;  // no valid Unicode
  const auto [at, exact] = column.place(text, static_cast<size_t>(bytes));
  return Place<int64_t>{static_cast<int64_t>(at), exact};
}

std::optional<Place<double>> float_place(PyObject* value) {
  if (PyFloat_CheckExact(value)) {
    const double x = PyFloat_AS_DOUBLE(value);
    return std::isnan(x) ? std::nullopt : std::optional(Place<double>{x});
  }
  constexpr long long kExact = 1LL << 53;
  int overflow = 0;
  if (!PyLong_CheckExact(value)) return std::nullopt;
  const long long x = PyLong_AsLongLongAndOverflow(value, &overflow);
  if (overflow || x < -kExact || x > kExact) return std::nullopt;
  return Place<double>{static_cast<double>(x)};
}

template <typename T, typename Find> std::optional<Span<T>> span_of(PyObject* condition, Find place_of) {
  Span<T> span;
  const auto keep = [&](std::string_view comparison, PyObject* value) {
    const std::optional<Place<T>> place = place_of(value);
    return place && span.keep(comparison, *place);
  };
  if (!PyDict_Check(condition)) return keep("$eq", condition) ? std::optional(span) : std::nullopt;
  if (!PyDict_CheckExact(condition) || PyDict_GET_SIZE(condition) == 0) return std::nullopt;
  PyObject *name, *value;
  for (Py_ssize_t at = 0; PyDict_Next(condition, &at, &name, &value);) {
    if (!PyUnicode_CheckExact(name)) return std::nullopt;
    Py_ssize_t bytes = 0;
    const char* comparison = PyUnicode_AsUTF8AndSize(name, &bytes);
    if (!comparison) return PyErr_Clear(), std::nullopt;
    if (!keep({comparison, static_cast<size_t>(bytes)}, value)) return std::nullopt;
  }
  return span;
}

// A test, or nothing where a condition is not plain.
std::optional<f::Test> test_of(const HeldColumn& column, PyObject* condition) {
  if (column.kind() == Kind::kFloat) {
    const auto span = span_of<double>(condition, float_place);
    if (!span) return std::nullopt;
    const size_t n = !span->empty && span->low <= span->high;
    return f::Test{column.column(), f::Spans(&span->low, &span->high, n)};
  }
  if (column.kind() == Kind::kOther) return std::nullopt;
  const auto span = span_of<int64_t>(condition, [&](PyObject* value) { return whole_place(column, value); });
  if (!span) return std::nullopt;
  const size_t n = !span->empty && span->low <= span->high;
  return f::Test{column.column(), f::Spans(column.stored(), &span->low, &span->high, n)};
}

using Words = nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>;

// The rows that pass, a bit each, and how many; None where a condition is not plain, or a column not there.
std::optional<std::pair<Words, size_t>> select_plain(nb::dict where, nb::dict columns, size_t n) {
  static const nb::object held_name = nb::steal(PyUnicode_InternFromString("_held"));
  std::vector<f::Test> tests;
  std::vector<nb::object> kept;  // columns, while they are read
  PyObject *name, *condition;
  for (Py_ssize_t at = 0; PyDict_Next(where.ptr(), &at, &name, &condition);) {
    const nb::object given = nb::borrow(condition);
    if (!PyUnicode_CheckExact(name) || (PyUnicode_GET_LENGTH(name) > 0 && PyUnicode_READ_CHAR(name, 0) == '$'))
      return std::nullopt;
    const nb::object column = nb::borrow(PyDict_GetItemWithError(columns.ptr(), name));
    if (!column.is_valid()) return PyErr_Clear(), std::nullopt;
    nb::object made = nb::steal(PyObject_GetAttr(column.ptr(), held_name.ptr()));
    if (!made.is_valid()) return PyErr_Clear(), std::nullopt;
    HeldColumn* held = nullptr;
    if (!nb::try_cast(made, held) || !held || held->rows() != n) return std::nullopt;
    std::optional<f::Test> test = test_of(*held, given.ptr());
    if (!test) return std::nullopt;
    tests.push_back(std::move(*test));
    kept.push_back(std::move(made));
  }
  if (tests.empty()) return std::nullopt;
  // Narrow columns first: of others nothing is read where it is settled who passes.
  std::stable_sort(tests.begin(), tests.end(), [](const f::Test& a, const f::Test& b) {
    return f::stored_bytes(a.spans.stored()) < f::stored_bytes(b.spans.stored());
  });
  const size_t words = (n + 63) / 64;
  std::unique_ptr<uint64_t[]> bits(new uint64_t[std::max<size_t>(1, words)]);
  size_t count = 0;
  {
    nb::gil_scoped_release release;
    f::test_all(tests, bits.get(), 0);
    count = count_set(bits.get(), words);
  }
  const nb::capsule owner(bits.get(), [](void* p) noexcept { delete[] static_cast<uint64_t*>(p); });
  return std::make_pair(Words(bits.release(), {words}, owner), count);
}

}  // namespace

void conditions(nb::module_& m) {
  m.def("select_plain", &select_plain, "where"_a, "columns"_a, "n"_a,
        nb::sig("def select_plain(where: dict[str, object], columns: dict[str, object], n: int) -> "
                "tuple[NDArray[numpy.uint64], int] | None"),
        "The rows that meet plain conditions, a bit each, and how many; None where others came.");
}

}  // namespace nearly::bind
