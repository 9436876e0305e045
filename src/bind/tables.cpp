// Tables, rows and threads.
#include <cstring>
#include <memory>
#include <system_error>

#include "base/bits.hpp"
#include "base/file_table.hpp"
#include "base/os.hpp"
#include "bind.hpp"

namespace nearly::bind {
namespace {

std::shared_ptr<Table> borrow(In<uint8_t, 2> array) {
  // The array lives as long as the table; its reference is dropped under the GIL.
  auto* owner = new nb::object(nb::cast(array));
  return {new Table(array.data(), array.shape(1), array.shape(0)), [owner](Table* t) {
            delete t;
            nb::gil_scoped_acquire gil;
            delete owner;
          }};
}

nb::object array_of(std::shared_ptr<Table> self) {
  auto* keep = new std::shared_ptr<Table>(self);
  nb::capsule owner(keep, [](void* p) noexcept { delete static_cast<std::shared_ptr<Table>*>(p); });
  const size_t shape[2] = {self->rows(), self->stride()};
  if (self->borrowed()) {
    return nb::cast(nb::ndarray<nb::numpy, const uint8_t, nb::ndim<2>>(self->data(), 2, shape, owner));
  }
  return nb::cast(nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>>(self->row(0), 2, shape, owner));
}

// Ids are needed of rows that come, not of rows that go.
std::vector<Link> links(In<uint32_t, 1> rows, const int64_t* ids, In<uint32_t, 1> nodes) {
  std::vector<Link> made(rows.shape(0));
  for (size_t i = 0; i < made.size(); ++i) made[i] = {rows.data()[i], ids ? ids[i] : 0, nodes.data()[i]};
  return made;
}

// Before anything is changed.
void check_links(const Rows& r, In<uint32_t, 1> rows, In<uint32_t, 1> nodes) {
  require(rows.shape(0) == nodes.shape(0), "Rows: lengths differ");
  require(writable(r.ids()) && writable(r.next_rows()) && writable(r.first_rows()) && writable(r.last_rows()),
          "Rows: a table is borrowed; copy it");
  for (size_t i = 0; i < rows.shape(0); ++i)
    require(rows.data()[i] < r.ids()->rows() && rows.data()[i] < r.next_rows()->rows() &&
                nodes.data()[i] < r.first_rows()->rows() && nodes.data()[i] < r.last_rows()->rows(),
            "Rows: row or node out of range");
}

using Nodes = nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>>;

using Words = nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>;

Nodes as_array(std::vector<Row>&& found) {
  auto held = std::make_unique<std::vector<Row>>(std::move(found));
  const nb::capsule owner(held.get(), [](void* p) noexcept { delete static_cast<std::vector<Row>*>(p); });
  std::vector<Row>* kept = held.release();
  return Nodes(kept->data(), {kept->size()}, owner);
}

// Where rows hang, as it was when this was made.
struct NodeRuns {
  std::shared_ptr<Table> nodes;
  size_t n_rows;
  Hanging hanging;

  // The nodes below n_nodes on which rows hang that are set.
  Words nodes_of(In<uint64_t, 1> bits, size_t n_nodes) const {
    const size_t n_words = (n_nodes + 63) / 64;
    auto made = std::make_unique<uint64_t[]>(std::max<size_t>(1, n_words));
    nearly::nodes_of(bits.data(), bits.shape(0), nodes->as<Row>(0), n_rows, hanging, n_nodes, made.get());
    const nb::capsule owner(made.get(), [](void* p) noexcept { delete[] static_cast<uint64_t*>(p); });
    return Words(made.release(), {n_words}, owner);
  }
};

size_t check_nodes(const Rows& rows, size_t n_rows, size_t n_nodes) {
  // Every chain ends, names rows that exist, ascends by id; no row hangs twice. Returns the rows that hang.
  require(rows.ids()->rows() >= n_rows && rows.next_rows()->rows() >= n_rows && rows.first_rows()->rows() >= n_nodes &&
              rows.last_rows()->rows() >= n_nodes, "row tables are too short");
  std::vector<bool> met(n_rows, false);
  size_t live = 0;
  for (size_t node = 0; node < n_nodes; ++node) {
    Row last = kNone;
    for (Row row = rows.first(static_cast<Row>(node)); row != kNone; row = rows.next(row)) {
      require(row < n_rows && !met[row], "a chain of rows names a row twice or one that does not exist");
      require(rows.id(row) >= 0 && (last == kNone || rows.id(last) < rows.id(row)), "ids of a chain do not ascend");
      met[row] = true;
      last = row;
      ++live;
    }
    require(last == kNone || *rows.last_rows()->as<Row>(node) == last, "a chain's last row is not where it ends");
  }
  return live;
}

}  // namespace

void tables(nb::module_& m) {
  nb::class_<Table>(m, "Table", "Rows of fixed stride that never move while they grow.")
      .def(nb::new_([](size_t stride, size_t rows, size_t capacity) {
             require(stride > 0 && stride < (size_t{1} << 24) && capacity < (size_t{1} << 32) && rows < (size_t{1} << 32),
                     "Table: stride in [1, 2^24), rows and capacity below 2^32");
             return std::make_shared<Table>(stride, rows, capacity);
           }),
           "stride"_a, "rows"_a, "capacity"_a)
      .def_static("borrow", &borrow, "array"_a.noconvert())
      .def("array", &array_of, nb::sig("def array(self) -> numpy.typing.NDArray[numpy.uint8]"))
      .def("grow", [](Table& t, size_t rows, uint8_t fill) {  // filled in the same call: Ctrl-C comes before or after
             require(!t.borrowed(), "Table.grow: a borrowed table cannot grow; copy it");
             const size_t old = t.rows();
             if (!t.grow(rows)) return false;
             if (fill && rows > old) std::memset(t.row(old), fill, (rows - old) * t.stride());
             return true;
           }, "rows"_a, "fill"_a = 0)
      .def("shrink", &Table::shrink, "rows"_a)
      .def("fill", [](Table& t, size_t first, size_t last, uint8_t value) {
             require(!t.borrowed() && first <= last && last <= t.rows(), "Table.fill: rows out of range or borrowed");
             std::memset(t.row(first), value, (last - first) * t.stride());
           }, "first"_a, "last"_a, "value"_a)
      .def_prop_ro("rows", &Table::rows)
      .def_prop_ro("stride", &Table::stride)
      .def_prop_ro("capacity", &Table::capacity)
      .def_prop_ro("borrowed", &Table::borrowed)
      .def_prop_ro("n_bytes", &Table::n_bytes);

  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
      PyErr_SetObject(PyExc_OSError, nb::make_tuple(error.code().value(), error.what()).ptr());
    }
  });
  nb::class_<FileTable>(m, "FileTable", "Rows of fixed stride in a file, which it closes.")
      .def(nb::new_([](int file, bool writable, uint64_t offset, size_t stride, size_t rows) {
             auto made = std::make_shared<FileTable>(file, writable, offset, stride, rows);  // closes it in any case
             require(stride > 0 && stride < (size_t{1} << 24) && rows < (size_t{1} << 32) && offset < (uint64_t{1} << 62),
                     "FileTable: stride in [1, 2^24), rows below 2^32");
             require(os::length(file) >= offset && os::length(file) - offset >= uint64_t{rows} * stride,
                     "FileTable: the file ends before its rows");
             return made;
           }), "file"_a, "writable"_a, "offset"_a, "stride"_a, "rows"_a)
      .def("grow", [](FileTable& t, size_t rows) {
             require(!t.borrowed() && rows < (size_t{1} << 32), "FileTable.grow: borrowed, or too many rows");
             t.grow(rows);
           }, "rows"_a)
      .def("write", [](FileTable& t, size_t first, In<uint8_t, 2> rows) {
             require(!t.borrowed() && rows.shape(1) == t.stride() && fits(first, rows.shape(0), t.rows()),
                     "FileTable.write: shapes disagree, or borrowed");
             nb::gil_scoped_release release;
             t.write(first, rows.data(), rows.shape(0));
           }, "first"_a, "rows"_a.noconvert())
      .def("read", [](const FileTable& t, size_t first, Out<uint8_t, 2> out) {
             require(out.shape(1) == t.stride() && fits(first, out.shape(0), t.rows()), "FileTable.read: shapes disagree");
             nb::gil_scoped_release release;
             t.read(first, out.shape(0), out.data());
           }, "first"_a, "out"_a.noconvert())
      .def("gather", [](const FileTable& t, In<uint32_t, 1> rows, Out<uint8_t, 2> out) {
             require(out.shape(1) == t.stride() && out.shape(0) == rows.shape(0), "FileTable.gather: shapes disagree");
             for (size_t i = 0; i < rows.shape(0); ++i) require(rows.data()[i] < t.rows(), "FileTable.gather: row out of range");
             nb::gil_scoped_release release;
             t.gather(rows.data(), rows.shape(0), out.data());
           }, "rows"_a.noconvert(), "out"_a.noconvert())
      .def_prop_ro("rows", &FileTable::rows)
      .def_prop_ro("stride", &FileTable::stride)
      .def_prop_ro("borrowed", &FileTable::borrowed)
      .def_prop_ro("n_bytes", &FileTable::n_bytes);

  nb::class_<Readers>(m, "Readers", "Who reads the tables of an index now.")
      .def(nb::new_([] { return std::make_shared<Readers>(); }))
      .def("wait", [](Readers& readers) {
             require_outside_metric();
             nb::gil_scoped_release release;
             readers.wait(poll());
           });

  nb::class_<Rows>(m, "Rows", "Ids of rows, and the chain of rows of each node.")
      .def(nb::new_([](std::shared_ptr<Table> ids, std::shared_ptr<Table> next, std::shared_ptr<Table> first,
                       std::shared_ptr<Table> last, std::shared_ptr<Readers> readers) {
             require(ids->stride() == 8 && next->stride() == 4 && first->stride() == 4 && last->stride() == 4,
                     "Rows: ids are 8 bytes, next, first and last 4");
             return std::make_shared<Rows>(ids, next, first, last, readers ? readers : std::make_shared<Readers>());
           }), "ids"_a, "next"_a, "first"_a, "last"_a, "readers"_a.none() = nb::none())
      .def("link", [](Rows& r, In<uint32_t, 1> rows, In<int64_t, 1> ids, In<uint32_t, 1> nodes) {
             require(ids.shape(0) == rows.shape(0), "Rows.link: lengths differ");
             check_links(r, rows, nodes);
             r.link(links(rows, ids.data(), nodes));
           }, "rows"_a.noconvert(), "ids"_a.noconvert(), "nodes"_a.noconvert())
      .def("unlink", [](Rows& r, In<uint32_t, 1> rows, In<uint32_t, 1> nodes) {
             check_links(r, rows, nodes);
             r.unlink(links(rows, nullptr, nodes));
           }, "rows"_a, "nodes"_a)
      .def("prepare", [](Rows& r, In<uint32_t, 1> come, In<int64_t, 1> ids, In<uint32_t, 1> nodes, In<uint32_t, 1> go,
                         In<uint32_t, 1> from) {
             require_outside_metric();
             require(ids.shape(0) == come.shape(0), "Rows.prepare: lengths differ");
             check_links(r, come, nodes);
             check_links(r, go, from);
             nb::gil_scoped_release release;
             r.prepare(links(come, ids.data(), nodes), links(go, nullptr, from), poll());
           }, "come"_a.noconvert(), "ids"_a.noconvert(), "nodes"_a.noconvert(), "go"_a.noconvert(), "from_nodes"_a.noconvert())
      .def_prop_ro("exchanging", &Rows::exchanging)
      .def("exchange", [](Rows& r) {
             require(r.prepared(), "Rows.exchange: nothing was prepared");
             r.exchange();
           })
      .def("call_off", [](Rows& r) {
             require(r.exchanging(), "Rows.call_off: nothing is prepared");
             r.call_off();
           })
      .def("settle", [](Rows& r) {
             require_outside_metric();
             nb::gil_scoped_release release;
             r.settle();
           })
      .def("retire", &Rows::retire)
      .def("check", &check_nodes, "n_rows"_a, "n_nodes"_a);

  nb::class_<NodeRuns>(m, "NodeRuns", "Where rows hang, as it was when this was made.")
      .def(nb::new_([](std::shared_ptr<Table> nodes, size_t n_rows) {
             require(nodes && nodes->stride() == sizeof(Row) && n_rows <= nodes->rows(), "NodeRuns: a table of nodes");
             return std::make_shared<NodeRuns>(NodeRuns{nodes, n_rows, hanging_of(nodes->as<Row>(0), n_rows)});
           }), "nodes"_a, "n_rows"_a)
      .def("nodes_of", &NodeRuns::nodes_of, "bits"_a.noconvert(), "n_nodes"_a,
           "The nodes below n_nodes on which rows hang that are set, a bit each.");
  m.def("set_nodes", [](In<uint64_t, 1> bits, size_t n_nodes) {
    return as_array(set_below(bits.data(), bits.shape(0), n_nodes));
  }, "bits"_a.noconvert(), "n_nodes"_a, "Those below n_nodes that are set, ascending.");
  m.def("some_nodes", [](In<uint64_t, 1> bits, size_t n_nodes, size_t most) {
    return as_array(some_below(bits.data(), bits.shape(0), n_nodes, most));
  }, "bits"_a.noconvert(), "n_nodes"_a, "most"_a, "Some of these from all over, ascending.");
  m.def("set_threads", [](size_t n) { set_default_threads(n); }, "n"_a);
  m.def("get_threads", &default_threads);
}

}  // namespace nearly::bind
