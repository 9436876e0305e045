// What one query costs beside its search: a row read through the buffer protocol, an answer written into one bytearray.
#pragma once
#include <array>
#include <cstring>

#include "bind.hpp"
#include "kernels/table.hpp"

namespace nearly::bind {

// Rows of finite float32 numbers, or one by itself; of several each is contiguous. NumPy answers the buffer protocol in a
// third of the time that DLPack takes.
class FloatRows {
 public:
  FloatRows(nb::handle from, size_t dim, int axes) {
    if (!PyObject_CheckBuffer(from.ptr())) return;
    held_ = PyObject_GetBuffer(from.ptr(), &view_, PyBUF_STRIDES | PyBUF_FORMAT) == 0;
    if (!held_) {
      PyErr_Clear();
      return;
    }
    if (view_.ndim != axes || view_.itemsize != 4 || !view_.format || std::strcmp(view_.format, "f") != 0 ||
        static_cast<size_t>(view_.shape[axes - 1]) != dim || reinterpret_cast<uintptr_t>(view_.buf) % 4 != 0 ||
        (dim > 1 && view_.strides[axes - 1] != 4) || view_.strides[0] < 0 || view_.strides[0] % 4 != 0)
      return;
    n_ = axes == 1 ? 1 : static_cast<size_t>(view_.shape[0]);
    stride_ = axes == 1 ? dim * 4 : static_cast<size_t>(view_.strides[0]);
    fits_ = kernels::active().first_nonfinite[kernels::kFloat32](bytes(), stride_, n_, dim) == n_;
  }
  ~FloatRows() {
    if (held_) PyBuffer_Release(&view_);
  }
  FloatRows(const FloatRows&) = delete;
  explicit operator bool() const { return fits_; }
  size_t n() const { return n_; }
  size_t stride() const { return stride_; }  // bytes from one to the next
  const uint8_t* bytes() const { return static_cast<const uint8_t*>(view_.buf); }

 private:
  Py_buffer view_;
  size_t n_ = 0, stride_ = 0;
  bool held_ = false, fits_ = false;
};

struct FloatRow : FloatRows {
  FloatRow(nb::handle from, size_t dim) : FloatRows(from, dim, 1) {}
};

// What was found, at most k: ids (int64), the counters of the work (uint64), distances (float32). Arrays are made of them
// when they are asked for.
class Answer {
 public:
  explicit Answer(size_t k) : k_(k), bytes_(nb::steal(PyByteArray_FromStringAndSize(nullptr, size(k)))) {
    if (!bytes_.is_valid()) throw nb::python_error();
  }
  int64_t* ids() { return reinterpret_cast<int64_t*>(data()); }
  float* distances() { return reinterpret_cast<float*>(data() + 8 * k_ + 24); }
  nb::object done(size_t n, std::array<uint64_t, 3> work) {
    if (n < k_) {
      std::memmove(data() + 8 * n + 24, distances(), 4 * n);
      if (PyByteArray_Resize(bytes_.ptr(), size(n)) != 0) throw nb::python_error();
    }
    std::memcpy(data() + 8 * n, work.data(), sizeof work);
    return std::move(bytes_);
  }

 private:
  static Py_ssize_t size(size_t n) { return static_cast<Py_ssize_t>(12 * n + 24); }
  char* data() { return PyByteArray_AS_STRING(bytes_.ptr()); }

  size_t k_;
  nb::object bytes_;
};

}  // namespace nearly::bind
