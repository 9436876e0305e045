// A metric that is a Python function: the same seam, one call a block.
#include <algorithm>
#include <cmath>

#include "bind.hpp"

namespace nearly::bind {
namespace {

// Stored items stay in a Python list. A query is an index into `queries`, or a stored row.
class Callable final : public Scorer {
 public:
  // score(stored: bool, which: int, rows: uint32 array) -> float32 array of len(rows)
  Callable(nb::object function, size_t n_rows) : function_(std::move(function)), n_rows_(n_rows) {}
  ~Callable() override {
    nb::gil_scoped_acquire gil;
    function_.reset();
  }
  void set_rows(size_t n) { n_rows_ = n; }

  size_t n_rows() const override { return n_rows_; }
  size_t n_bytes() const override { return 0; }
  size_t query_bytes() const override { return 8; }
  size_t prepared_bytes() const override { return 16; }
  void prepare(const void* query, void* prepared) const override {
    auto* out = static_cast<int64_t*>(prepared);
    out[0] = 0;
    __builtin_memcpy(out + 1, query, 8);
  }
  void prepare_row(Row row, void* prepared) const override {
    auto* out = static_cast<int64_t*>(prepared);
    out[0] = 1;
    out[1] = row;
  }
  void score(const void* prepared, const Row* rows, size_t n, float, float* out) const override {
    if (n == 0) return;
    const auto* query = static_cast<const int64_t*>(prepared);
    nb::gil_scoped_acquire gil;
    struct Inside {
      Inside() { ++in_metric; }
      ~Inside() { --in_metric; }
    };
    const Inside inside;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    const size_t shape[1] = {n};
    const nb::ndarray<nb::numpy, const Row, nb::ndim<1>> view(rows, 1, shape, nb::handle());
    const nb::object made = function_(query[0] != 0, query[1], nb::cast(view, nb::rv_policy::copy));
    const auto answer = nb::cast<In<float, 1>>(made);
    require(answer.shape(0) == n, "the metric gave another number of distances than items");
    require(std::none_of(answer.data(), answer.data() + n, [](float d) { return std::isnan(d); }),
            "the metric gave a distance that is not a number");
    std::copy(answer.data(), answer.data() + n, out);
  }
  void score_range(const void* prepared, Row first, size_t n, float* out) const override {
    std::vector<Row> rows(n);
    for (size_t i = 0; i < n; ++i) rows[i] = static_cast<Row>(first + i);
    score(prepared, rows.data(), n, __builtin_huge_valf(), out);
  }

 private:
  nb::object function_;
  size_t n_rows_;
};

}  // namespace

void callable(nb::module_& m) {
  nb::class_<Callable, Scorer>(m, "Callable", "A Python function as a scorer.")
      .def(nb::new_([](nb::object function, size_t n_rows) { return std::make_shared<Callable>(function, n_rows); }),
           "function"_a, "n_rows"_a)
      .def("set_rows", &Callable::set_rows, "n_rows"_a);
}

}  // namespace nearly::bind
