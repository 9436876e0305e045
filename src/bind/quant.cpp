// Scorers of vectors, equal vectors, principal axes. Scorers of codes: codes.cpp.
#include "base/distinct.hpp"
#include "quant/filed.hpp"
#include "quant/plain.hpp"
#include "quant/principal.hpp"

#include "bind.hpp"

#include <cstring>

namespace nearly::bind {
namespace {

kernels::Element element_from(int e) {
  require(e >= 0 && e < kernels::kElements, "unknown element number");
  return static_cast<kernels::Element>(e);
}

std::shared_ptr<quant::Plain> make_plain(std::shared_ptr<Table> rows, int element, int metric, size_t dim) {
  const kernels::Element e = element_from(element);
  const Metric m = metric_from(metric);
  require(dim >= 1 && dim <= 32768, "Plain: dim in [1, 32768]");
  require(!is_bits(m) || e == kernels::kUint8, "Plain: bits are uint8");
  require(rows->stride() == quant::Plain::row_bytes(e, m, dim), "Plain: the table's stride is not row_bytes()");
  return std::make_shared<quant::Plain>(rows, e, m, dim);
}

std::shared_ptr<quant::Filed> make_filed(std::shared_ptr<FileTable> file, int element, int metric, size_t dim) {
  const kernels::Element e = element_from(element);
  const Metric m = metric_from(metric);
  require(dim >= 1 && dim <= 32768, "Filed: dim in [1, 32768]");
  require(!is_bits(m) || e == kernels::kUint8, "Filed: bits are uint8");
  require(file->stride() == quant::Plain::row_bytes(e, m, dim), "Filed: the table's stride is not row_bytes()");
  return std::make_shared<quant::Filed>(file, e, m, dim);
}

void plain_fill(quant::Plain& p, size_t first, In<uint8_t, 2> vectors, size_t threads) {
  const size_t bytes = p.dim() * quant::Plain::element_bytes(p.element());
  require(vectors.shape(1) == bytes && fits(first, vectors.shape(0), p.n_rows()) && !p.borrowed(),
          "Plain.fill: shapes disagree, or the table is borrowed");
  nb::gil_scoped_release release;
  parallel_for(vectors.shape(0), 1024, threads, [&](size_t begin, size_t end) {
    p.fill(first + begin, vectors.data() + begin * bytes, end - begin);
  }, poll());
}

void plain_decode(const quant::Plain& p, In<uint32_t, 1> rows, Out<float, 2> out, size_t threads) {
  require(!is_bits(p.metric()) && out.shape(0) == rows.shape(0) && out.shape(1) == p.dim(), "Plain.decode: shapes disagree");
  for (size_t i = 0; i < rows.shape(0); ++i) require(rows.data()[i] < p.n_rows(), "Plain.decode: row out of range");
  nb::gil_scoped_release release;
  parallel_for(rows.shape(0), 256, threads, [&](size_t begin, size_t end) {
    p.decode(rows.data() + begin, end - begin, out.data() + begin * p.dim());
  }, poll());
}

// Distances in the unit of comparison from one query to some rows: for tests and fitting.
void score(const Scorer& s, size_t query_bytes, In<uint8_t, 1> query, In<uint32_t, 1> rows, Out<float, 1> out) {
  require(query.shape(0) == query_bytes && query_bytes == s.query_bytes() && out.shape(0) == rows.shape(0), "score: shapes disagree");
  for (size_t i = 0; i < rows.shape(0); ++i) require(rows.data()[i] < s.n_rows(), "score: row out of range");
  std::vector<uint8_t> memory(s.prepared_bytes() + 64);
  auto* prepared = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  s.prepare(query.data(), prepared);
  s.score(prepared, rows.data(), rows.shape(0), __builtin_huge_valf(), out.data());
}

void between(const Scorer& s, uint32_t row, In<uint32_t, 1> rows, Out<float, 1> out) {
  require(row < s.n_rows() && out.shape(0) == rows.shape(0), "between: shapes disagree");
  for (size_t i = 0; i < rows.shape(0); ++i) require(rows.data()[i] < s.n_rows(), "between: row out of range");
  std::vector<uint8_t> memory(s.prepared_bytes() + 64);
  auto* prepared = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  s.prepare_row(row, prepared);
  s.score(prepared, rows.data(), rows.shape(0), __builtin_huge_valf(), out.data());
}

// Keeps its table alive, which is one of the two.
struct DistinctRows {
  std::shared_ptr<Table> table;
  std::shared_ptr<FileTable> file;
  size_t bytes;
  Distinct set;

  size_t n_rows() const { return table ? table->rows() : file->rows(); }
  bool of(const quant::Plain& store) const {
    const auto* filed = dynamic_cast<const quant::Filed*>(&store);
    return filed ? filed->file() == file : store.rows() == table;
  }
};

DistinctRows* make_distinct(std::shared_ptr<Table> table, std::shared_ptr<FileTable> file, Distinct::Look look, size_t bytes,
                            size_t n_nodes, In<uint8_t, 1> alive) {
  const size_t stride = table ? table->stride() : file->stride(), n_rows = table ? table->rows() : file->rows();
  require(bytes >= 1 && bytes <= stride && n_nodes <= n_rows && alive.shape(0) >= n_nodes, "Distinct: shapes disagree");
  auto made = std::make_unique<DistinctRows>(DistinctRows{std::move(table), std::move(file), bytes, Distinct(look, bytes)});
  std::vector<uint8_t> held(bytes);
  for (size_t i = 0; i < n_nodes; ++i) {
    if (!alive.data()[i]) continue;
    std::memcpy(held.data(), look(static_cast<Row>(i)), bytes);
    if (made->set.find(held.data()) == kNone) made->set.insert(static_cast<Row>(i), held.data());
  }
  return made.release();
}

// nodes[i] = the node of vector i: one that stands, or n_nodes, n_nodes + 1, … in order of first sight, put at that row.
// Returns the new number of nodes. `spare`: free nodes below n_nodes to take first, in order.
size_t place(DistinctRows& d, quant::Plain& store, In<uint8_t, 2> vectors, size_t n_nodes, In<uint32_t, 1> spare,
             Out<uint32_t, 1> nodes, Out<uint32_t, 1> fresh) {
  const size_t n = vectors.shape(0);
  require(vectors.shape(1) == d.bytes && nodes.shape(0) == n && fresh.shape(0) == n && d.of(store) &&
              d.bytes == store.dim() * quant::Plain::element_bytes(store.element()) && !store.borrowed() &&
              fits(n_nodes, n - std::min(n, spare.shape(0)), store.n_rows()), "place: shapes disagree");
  for (size_t i = 0; i < spare.shape(0); ++i) require(spare.data()[i] < n_nodes, "place: a spare node does not exist");
  const Poll check = poll();
  nb::gil_scoped_release release;
  size_t n_fresh = 0, n_spare = 0;
  for (size_t i = 0; i < n; ++i) {
    if (i % 1024 == 0) {
      try {
        poll_if_due(check);
      } catch (...) {  // none of them is there
        for (size_t j = 0; j < n_fresh; ++j) d.set.erase(fresh.data()[j]);
        throw;
      }
    }
    const uint8_t* vector = vectors.data() + i * d.bytes;
    Row node = d.set.find(vector);
    if (node == kNone) {
      node = n_spare < spare.shape(0) ? spare.data()[n_spare++] : static_cast<Row>(n_nodes++);
      store.fill(node, vector, 1);
      d.set.insert(node, vector);
      fresh.data()[n_fresh++] = node;
    }
    nodes.data()[i] = node;
  }
  return n_fresh;
}

}  // namespace

void quant(nb::module_& m) {
  nb::class_<Scorer>(m, "Scorer", "The seam between vectors and navigators.")
      .def_prop_ro("n_rows", &Scorer::n_rows)
      .def_prop_ro("n_bytes", &Scorer::n_bytes)
      .def("score", &score, "query_bytes"_a, "query"_a.noconvert(), "rows"_a.noconvert(), "out"_a.noconvert())
      .def("between", &between, "row"_a, "rows"_a.noconvert(), "out"_a.noconvert());

  nb::class_<quant::Plain, Scorer>(m, "Plain")
      .def(nb::new_(&make_plain), "rows"_a, "element"_a, "metric"_a, "dim"_a)
      .def_static("row_bytes", [](int e, int metric, size_t dim) {
             return quant::Plain::row_bytes(element_from(e), metric_from(metric), dim);
           }, "element"_a, "metric"_a, "dim"_a)
      .def("fill", &plain_fill, "first"_a, "vectors"_a.noconvert(), "threads"_a = 0)
      .def("decode", &plain_decode, "rows"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0);

  nb::class_<quant::Filed, quant::Plain>(m, "Filed", "As Plain, over rows in a file.")
      .def(nb::new_(&make_filed), "rows"_a, "element"_a, "metric"_a, "dim"_a);

  nb::class_<DistinctRows>(m, "Distinct", "Finds equal vectors.")
      .def(nb::new_([](std::shared_ptr<Table> rows, size_t bytes, size_t n_nodes, In<uint8_t, 1> alive) {
             const Table* table = rows.get();
             return make_distinct(rows, nullptr, [table](Row row) { return table->row(row); }, bytes, n_nodes, alive);
           }), "rows"_a, "bytes"_a, "n_nodes"_a, "alive"_a.noconvert())
      .def(nb::new_([](std::shared_ptr<FileTable> rows, size_t bytes, size_t n_nodes, In<uint8_t, 1> alive) {
             const auto look = [file = rows.get(), room = std::vector<uint8_t>(rows->stride())](Row row) mutable {
               file->gather(&row, 1, room.data());
               return static_cast<const uint8_t*>(room.data());
             };
             return make_distinct(nullptr, rows, look, bytes, n_nodes, alive);
           }), "rows"_a, "bytes"_a, "n_nodes"_a, "alive"_a.noconvert())
      .def("place", &place, "store"_a, "vectors"_a.noconvert(), "n_nodes"_a, "spare"_a.noconvert(), "nodes"_a.noconvert(),
           "fresh"_a.noconvert())
      .def("erase", [](DistinctRows& d, In<uint32_t, 1> nodes) {
             for (size_t i = 0; i < nodes.shape(0); ++i) {
               require(nodes.data()[i] < d.n_rows(), "Distinct.erase: node out of range");
               d.set.erase(nodes.data()[i]);
             }
           }, "nodes"_a.noconvert());

  m.def("principal_axes", [](In<float, 2> covariance, size_t n_axes, size_t rounds, uint64_t seed, Out<double, 2> axes,
                             Out<double, 1> variances, size_t threads) {
    const size_t d = covariance.shape(0);
    require(covariance.shape(1) == d && n_axes >= 1 && n_axes <= d && axes.shape(0) == n_axes && axes.shape(1) == d &&
                variances.shape(0) == n_axes, "principal_axes: shapes disagree");
    nb::gil_scoped_release release;
    quant::principal_axes(covariance.data(), d, n_axes, rounds, seed, axes.data(), variances.data(), threads, poll());
  }, "covariance"_a.noconvert(), "n_axes"_a, "rounds"_a, "seed"_a, "axes"_a.noconvert(), "variances"_a.noconvert(),
     "threads"_a = 0);
}

}  // namespace nearly::bind
