// Shared by the files of this folder: array types, errors, and Ctrl-C.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "base/metric.hpp"
#include "base/rows.hpp"
#include "base/scorer.hpp"
#include "base/table.hpp"
#include "base/threads.hpp"

namespace nearly::bind {

namespace nb = nanobind;
using namespace nb::literals;

template <typename T, size_t kDims>
using In = nb::ndarray<const T, nb::ndim<kDims>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t kDims>
using Out = nb::ndarray<T, nb::ndim<kDims>, nb::c_contig, nb::device::cpu>;

inline void require(bool ok, const char* message) {
  if (!ok) throw nb::value_error(message);
}

// Whether n things fit from `first` on; no sum that could overflow.
inline bool fits(size_t first, size_t n, size_t room) { return first <= room && n <= room - first; }

inline bool writable(const std::shared_ptr<Table>& table) { return !table || !table->borrowed(); }

// A metric that is a Python function runs within a search or a build, whose memory is its thread's own.
inline thread_local int in_metric = 0;
inline void require_outside_metric() {
  if (in_metric > 0) throw std::runtime_error("a metric may not search or change a graph while it is asked for distances");
}

inline Metric metric_from(int m) {
  require(m >= 0 && m <= static_cast<int>(Metric::kJaccard), "unknown metric number");
  return static_cast<Metric>(m);
}

// Lets Ctrl-C and other signal handlers run; ends the loop by the exception they raise.
inline Poll poll() {
  return [] {
    nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  };
}

// What `read` returns, or nothing when what it read was retired meanwhile.
template <typename Read> auto unless_retired(Read read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Retired&) {
    return std::nullopt;
  }
}

void tables(nb::module_& m);
void kernels(nb::module_& m);
void quant(nb::module_& m);
void codes(nb::module_& m);
void lists(nb::module_& m);
void inverted(nb::module_& m);
void graph(nb::module_& m);
void callable(nb::module_& m);
void filters(nb::module_& m);

}  // namespace nearly::bind
