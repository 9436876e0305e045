// Scorers of codes: one door for all to fill and decode, one more for each kind to make it.
#include "quant/additive.hpp"
#include "quant/alone.hpp"
#include "quant/binary.hpp"
#include "quant/codes.hpp"
#include "quant/listed.hpp"
#include "quant/map.hpp"
#include "quant/mapped.hpp"
#include "quant/plain.hpp"
#include "quant/rabitq.hpp"
#include "quant/rotation.hpp"
#include "quant/saq.hpp"

#include <numeric>

#include "bind.hpp"

namespace nearly::bind {
namespace {

constexpr size_t kBlock = 64;  // rows that a thread codes at a time

// Codes rows of the store: vectors never pass through Python.
void fill(quant::Coded& c, const quant::Plain& store, size_t first, size_t last, size_t threads) {
  require(first <= last && last <= c.n_rows() && last <= store.n_rows() && c.dim() == store.dim() && !c.rows()->borrowed(),
          "fill: rows or dim disagree, or the table is borrowed");
  nb::gil_scoped_release release;
  parallel_for(last - first, kBlock, threads, [&](size_t begin, size_t end) {
    std::vector<float> wide((end - begin) * store.dim());
    std::vector<Row> rows(end - begin);
    std::iota(rows.begin(), rows.end(), static_cast<Row>(first + begin));
    store.decode(rows.data(), rows.size(), wide.data());
    c.fill(first + begin, wide.data(), end - begin);
  }, poll());
}

// As fill, of chosen rows of the store: slots[i] becomes the code of row nodes[i].
void gather(quant::Coded& c, const quant::Plain& store, In<uint32_t, 1> slots, In<uint32_t, 1> nodes, size_t threads) {
  const size_t n = slots.shape(0);
  require(nodes.shape(0) == n && c.dim() == store.dim() && !c.rows()->borrowed(),
          "gather: lengths or dim disagree, or the table is borrowed");
  for (size_t i = 0; i < n; ++i)
    require(slots.data()[i] < c.n_rows() && nodes.data()[i] < store.n_rows(), "gather: row out of range");
  nb::gil_scoped_release release;
  parallel_for(n, kBlock, threads, [&](size_t begin, size_t end) {
    std::vector<float> wide((end - begin) * store.dim());
    store.decode(nodes.data() + begin, end - begin, wide.data());
    for (size_t i = begin, run = 1; i < end; i += run, run = 1) {  // slots that follow one another are coded together
      while (i + run < end && slots.data()[i + run] == slots.data()[i] + run) ++run;
      c.fill(slots.data()[i], wide.data() + (i - begin) * store.dim(), run);
    }
  }, poll());
}

void encode(quant::Coded& c, size_t first, In<float, 2> vectors, size_t threads) {
  require(vectors.shape(1) == c.dim() && fits(first, vectors.shape(0), c.n_rows()) && !c.rows()->borrowed(),
          "encode: shapes disagree, or the table is borrowed");
  nb::gil_scoped_release release;
  parallel_for(vectors.shape(0), kBlock, threads, [&](size_t begin, size_t end) {
    c.fill(first + begin, vectors.data() + begin * c.dim(), end - begin);
  }, poll());
}

void decode(const quant::Coded& c, size_t first, Out<float, 2> out) {
  require(fits(first, out.shape(0), c.n_rows()) && out.shape(1) == c.dims(), "decode: shapes disagree");
  nb::gil_scoped_release release;
  for (size_t i = 0; i < out.shape(0); ++i) c.decode(static_cast<Row>(first + i), out.data() + i * c.dims());
}

template <typename T> std::vector<T> to_vector(In<T, 1> a) { return {a.data(), a.data() + a.shape(0)}; }

quant::Form make_form(size_t dim, int metric, float norm_bound) {
  const quant::Form form{dim, metric_from(metric), norm_bound};
  require(dim >= 1 && dim <= 32768, "codes: dim in [1, 32768]");
  require(form.metric == Metric::kL2 || form.metric == Metric::kCosine || form.metric == Metric::kDot,
          "codes: l2, cosine or ip");
  return form;
}

std::shared_ptr<quant::Codes> make_codes(std::shared_ptr<Table> rows, size_t dim, size_t dims, int bits, bool per_vector,
                                         int metric, float norm_bound, In<float, 1> center, In<float, 1> step,
                                         In<int8_t, 1> matrix, In<float, 1> matrix_scale, In<float, 1> offset,
                                         In<float, 1> mean) {
  quant::CodeSpec s;
  static_cast<quant::Form&>(s) = make_form(dim, metric, norm_bound);
  s.dims = dims;
  s.bits = bits;
  s.scale = per_vector ? quant::Scale::kVector : quant::Scale::kShared;
  require(dims >= 1 && (bits == 8 || bits == 4), "Codes: dims or bits out of range");
  require(center.shape(0) == dims && (per_vector || step.shape(0) == dims), "Codes: center and step hold dims floats");
  const bool projects = matrix.shape(0) > 0;
  require(projects ? dims <= s.input_dim() : dims == s.input_dim(), "Codes: dims and dim disagree");
  require(!projects || (matrix.shape(0) == s.padded_input() * s.padded_dims() && matrix_scale.shape(0) == dims &&
                        offset.shape(0) == dims && mean.shape(0) == s.input_dim()),
          "Codes: the projection's shapes disagree");
  s.center = to_vector(center);
  s.step = to_vector(step);
  s.matrix = to_vector(matrix);
  s.matrix_scale = to_vector(matrix_scale);
  s.offset = to_vector(offset);
  s.mean = to_vector(mean);
  require(rows->stride() == quant::Codes::row_bytes(s), "Codes: the table's stride is not row_bytes()");
  return std::make_shared<quant::Codes>(std::move(s), rows);
}

size_t rabitq_row_bytes(size_t inputs, int bits) {
  require(bits >= 1 && bits <= 8 && inputs >= 1 && inputs <= 32769, "RaBitQ: bits in [1, 8]");
  quant::RaBitQSpec s;
  s.dim = inputs;
  s.bits = bits;
  return quant::RaBitQ::row_bytes(s);
}

std::shared_ptr<quant::RaBitQ> make_rabitq(std::shared_ptr<Table> rows, size_t dim, int bits, int metric, float norm_bound,
                                           float epsilon, In<float, 1> center, In<uint64_t, 1> signs) {
  quant::RaBitQSpec s;
  static_cast<quant::Form&>(s) = make_form(dim, metric, norm_bound);
  const size_t inputs = s.input_dim();
  require(rows->stride() == rabitq_row_bytes(inputs, bits), "RaBitQ: the table's stride is not row_bytes()");
  require(epsilon > 0 && epsilon < 1e6f, "RaBitQ: epsilon is positive");
  require(center.shape(0) == inputs && signs.shape(0) == quant::Rotation::n_words(inputs),
          "RaBitQ: center holds a float, signs four bits for each dimension");
  s.bits = bits;
  s.epsilon = epsilon;
  s.center = to_vector(center);
  s.rotation = quant::Rotation(inputs, to_vector(signs));
  return std::make_shared<quant::RaBitQ>(std::move(s), rows);
}

// Segments without their variances and rotations: what the size of a row follows from.
std::vector<quant::Segment> saq_segments(In<uint32_t, 1> lengths, In<uint8_t, 1> bits) {
  const size_t n = lengths.shape(0);
  require(n >= 1 && n <= quant::Saq::kSegments && bits.shape(0) == n, "Saq: between 1 and 8 segments");
  std::vector<quant::Segment> made(n);
  for (size_t s = 0; s < n; ++s) {
    const size_t length = lengths.data()[s];
    require(length >= 1 && length <= 32832 && (length % 64 == 0 || s + 1 == n), "Saq: segments are of 64 * m dimensions");
    require(bits.data()[s] >= 1 && bits.data()[s] <= 12, "Saq: segments have 1 to 12 bits");
    made[s].length = length;
    made[s].bits = bits.data()[s];
  }
  return made;
}

std::shared_ptr<quant::Saq> make_saq(std::shared_ptr<Table> rows, size_t dim, int metric, float norm_bound, float epsilon,
                                     int rounds, In<float, 1> center, In<float, 2> axes, In<uint32_t, 1> lengths,
                                     In<uint8_t, 1> bits, In<float, 1> variances, In<uint64_t, 1> signs) {
  quant::SaqSpec s;
  static_cast<quant::Form&>(s) = make_form(dim, metric, norm_bound);
  s.segments = saq_segments(lengths, bits);
  require(rows->stride() == quant::Saq::row_bytes(s.segments), "Saq: the table's stride is not row_bytes()");
  require(epsilon > 0 && epsilon < 1e6f && rounds >= 0 && rounds <= 100, "Saq: epsilon or rounds out of range");
  require(variances.shape(0) == s.segments.size() && center.shape(0) == s.input_dim() && axes.shape(1) == s.input_dim(),
          "Saq: center and axes are of another dimension, or variances are missing");
  size_t coded = 0, word = 0;
  for (size_t i = 0; i < s.segments.size(); ++i) {
    quant::Segment& segment = s.segments[i];
    const size_t words = quant::Rotation::n_words(segment.length);
    require(fits(word, words, signs.shape(0)) && variances.data()[i] > 0 && variances.data()[i] < 1e30f,
            "Saq: signs hold four bits for each dimension, variances are positive");
    segment.variance = variances.data()[i];
    segment.rotation = quant::Rotation(segment.length, {signs.data() + word, signs.data() + word + words});
    coded += segment.length;
    word += words;
  }
  require(word == signs.shape(0) && coded == axes.shape(0) && coded <= s.input_dim(), "Saq: segments and axes disagree");
  s.epsilon = epsilon;
  s.rounds = rounds;
  s.center = to_vector(center);
  s.axes.assign(axes.data(), axes.data() + axes.size());
  return std::make_shared<quant::Saq>(std::move(s), rows);
}

quant::AdditiveSpec additive_spec(size_t dim, int metric, float norm_bound, size_t books, int bits, bool residual, size_t beam) {
  quant::AdditiveSpec s;
  static_cast<quant::Form&>(s) = make_form(dim, metric, norm_bound);
  require((bits == 8 || bits == 4) && beam >= 1 && beam <= 256, "Additive: bits or beam out of range");
  require(books >= 1 && books <= (residual ? 256 : s.input_dim()), "Additive: codebooks out of range");
  s.books = books;
  s.bits = bits;
  s.residual = residual;
  s.beam = beam;
  return s;
}

std::shared_ptr<quant::Additive> make_additive(std::shared_ptr<Table> rows, size_t dim, int metric, float norm_bound,
                                               int bits, bool residual, size_t beam, In<float, 1> center,
                                               In<float, 3> codewords) {
  quant::AdditiveSpec s = additive_spec(dim, metric, norm_bound, codewords.shape(0), bits, residual, beam);
  require(center.shape(0) == s.input_dim() && codewords.shape(1) == s.words() && codewords.shape(2) == s.width(),
          "Additive: center or codewords have another shape");
  require(rows->stride() == quant::Additive::row_bytes(s), "Additive: the table's stride is not row_bytes()");
  s.center = to_vector(center);
  s.codewords.assign(codewords.data(), codewords.data() + codewords.size());
  return std::make_shared<quant::Additive>(std::move(s), rows);
}

std::shared_ptr<quant::Binary> make_binary(std::shared_ptr<Table> rows, size_t dim, int metric, float norm_bound,
                                           In<float, 1> center, In<float, 1> levels) {
  const quant::Form form = make_form(dim, metric, norm_bound);
  require(center.shape(0) == form.input_dim() && levels.shape(0) == form.input_dim(),
          "Binary: center and levels hold a float for each dimension");
  require(rows->stride() == quant::Binary::row_bytes(form), "Binary: the table's stride is not row_bytes()");
  return std::make_shared<quant::Binary>(form, to_vector(center), to_vector(levels), rows);
}

// Scores and the half-widths of their bounds, above `bound` whatever `score` says: for tests.
void bounded_scores(const quant::Bounded& r, In<float, 1> query, In<uint32_t, 1> rows, float bound, Out<float, 1> out,
                    Out<float, 1> errors) {
  const size_t n = rows.shape(0);
  require(query.shape(0) == r.dim() && out.shape(0) == n && errors.shape(0) == n, "bounded_scores: shapes disagree");
  for (size_t i = 0; i < n; ++i) require(rows.data()[i] < r.n_rows(), "bounded_scores: row out of range");
  std::vector<uint8_t> memory(r.prepared_bytes() + 64);
  auto* prepared = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  r.prepare(query.data(), prepared);
  r.score(prepared, rows.data(), n, bound, out.data());
  r.errors(prepared, rows.data(), n, errors.data());
}

quant::ListedSpec listed_spec(size_t dim, int metric, size_t dims, size_t books) {
  quant::ListedSpec s;
  static_cast<quant::Form&>(s) = make_form(dim, metric, 0.0f);
  require(books >= 1 && books <= kernels::kLookups && dims >= books && dims <= dim, "Listed: books or dims out of range");
  s.dims = dims;
  s.books = books;
  return s;
}

std::shared_ptr<quant::Listed> make_listed(std::shared_ptr<Table> centers, std::shared_ptr<Table> blocks, int metric,
                                           In<int8_t, 1> matrix, In<float, 1> matrix_scale, In<float, 1> mean,
                                           In<float, 3> codewords) {
  require(centers->stride() % 4 == 0, "Listed: centers are floats");
  quant::ListedSpec s = listed_spec(centers->stride() / 4, metric, mean.shape(0), codewords.shape(0));
  require(codewords.shape(1) == 16 && codewords.shape(2) == s.width(), "Listed: codewords have another shape");
  const bool projects = matrix.shape(0) > 0;
  require(projects ? matrix.shape(0) == s.padded_input() * s.padded_dims() && matrix_scale.shape(0) == s.dims
                   : s.dims == s.dim, "Listed: the projection's shapes disagree");
  require(blocks->stride() == s.block_bytes(), "Listed: the table's stride is not block_bytes()");
  s.matrix = to_vector(matrix);
  s.matrix_scale = to_vector(matrix_scale);
  s.mean = to_vector(mean);
  s.codewords.assign(codewords.data(), codewords.data() + codewords.size());
  return std::make_shared<quant::Listed>(std::move(s), centers, blocks);
}

void check_slots(const quant::Listed& c, In<uint32_t, 1> slots, In<uint32_t, 1> lists) {
  require(slots.shape(0) == lists.shape(0), "Listed: as many slots as lists");
  for (size_t i = 0; i < slots.shape(0); ++i)
    require(slots.data()[i] < c.n_slots() && lists.data()[i] < c.n_lists(), "Listed: a slot or a list out of range");
}

// Codes rows of the store: slots[i], rising, becomes the code of row nodes[i] in lists[i].
void fill_slots(quant::Listed& c, const quant::Plain& store, In<uint32_t, 1> slots, In<uint32_t, 1> nodes,
                In<uint32_t, 1> lists, size_t threads) {
  const size_t n = slots.shape(0);
  check_slots(c, slots, lists);
  require(nodes.shape(0) == n && c.spec().dim == store.dim() && !c.blocks()->borrowed(),
          "Listed.fill: lengths or dim disagree, or the table is borrowed");
  for (size_t i = 0; i < n; ++i)
    require(nodes.data()[i] < store.n_rows() && (i == 0 || slots.data()[i] > slots.data()[i - 1]),
            "Listed.fill: a node out of range, or slots that do not rise");
  std::vector<size_t> begins;  // a task begins with a block, as slots of one share bytes
  for (size_t i = 0; i < n; ++i)
    if (i == 0 || (slots.data()[i] / ListScorer::kUnit != slots.data()[i - 1] / ListScorer::kUnit &&
                   i >= begins.back() + kBlock)) begins.push_back(i);
  nb::gil_scoped_release release;
  parallel_for(begins.size(), 1, threads, [&](size_t first, size_t last) {
    const size_t begin = begins[first], end = last < begins.size() ? begins[last] : n;
    std::vector<float> wide((end - begin) * store.dim());
    store.decode(nodes.data() + begin, end - begin, wide.data());
    c.fill(wide.data(), slots.data() + begin, lists.data() + begin, end - begin);
  }, poll());
}

void score_slots(const quant::Listed& c, In<float, 1> query, In<uint32_t, 1> slots, In<uint32_t, 1> lists, Out<float, 1> out) {
  check_slots(c, slots, lists);
  require(query.shape(0) == c.spec().dim && out.shape(0) == slots.shape(0), "Listed.score: shapes disagree");
  std::vector<uint8_t> memory(c.prepared_bytes() + 64);
  auto* prepared = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  c.prepare(query.data(), prepared);
  c.score(prepared, slots.data(), lists.data(), slots.shape(0), out.data());
}

void add_affine(quant::Map& map, In<float, 2> matrix, In<float, 1> offset) {
  require(matrix.shape(0) >= 1 && matrix.shape(0) <= 32832 && matrix.shape(1) == map.outputs() && offset.shape(0) == matrix.shape(0),
          "Map: the matrix has a row and the offset a number for each output");
  map.add_affine(matrix.data(), to_vector(offset));
}

void apply_map(const quant::Map& map, In<float, 2> rows, bool with_offset, Out<float, 2> out, size_t threads) {
  require(rows.shape(1) == map.inputs() && out.shape(1) == map.outputs() && rows.shape(0) == out.shape(0),
          "Map.apply: shapes disagree");
  nb::gil_scoped_release release;
  parallel_for(rows.shape(0), kBlock, threads, [&](size_t begin, size_t end) {
    map.apply(rows.data() + begin * map.inputs(), end - begin, with_offset, out.data() + begin * map.outputs());
  }, poll());
}

std::shared_ptr<quant::Mapped> make_mapped(std::shared_ptr<quant::Map> map, size_t dim, int metric, float norm_bound,
                                           bool rest, In<float, 1> center, std::shared_ptr<quant::Coded> codes) {
  const quant::Form form = make_form(dim, metric, norm_bound);
  const size_t wide = map->outputs() + rest;
  require(map->inputs() == form.input_dim() && center.shape(0) == map->inputs() && codes->dim() == wide &&
              codes->dims() == wide && !(rest && form.product()), "Mapped: map, center and codes disagree");
  return std::make_shared<quant::Mapped>(form, map, rest, to_vector(center), codes);
}

// Rotates rows of any dimension, or back. `to` holds multiples of 64 floats.
void rotate_rows(In<uint64_t, 1> signs, In<float, 2> from, Out<float, 2> to, bool inverse) {
  const size_t dim = inverse ? to.shape(1) : from.shape(1), size = inverse ? from.shape(1) : to.shape(1);
  require(dim >= 1 && size == quant::Rotation::padded(dim) && from.shape(0) == to.shape(0) &&
              signs.shape(0) == quant::Rotation::n_words(dim), "rotate_rows: shapes disagree");
  const quant::Rotation rotation(dim, to_vector(signs));
  nb::gil_scoped_release release;
  for (size_t i = 0; i < from.shape(0); ++i) {
    if (inverse)
      rotation.invert(from.data() + i * size, to.data() + i * dim);
    else
      rotation.apply(from.data() + i * dim, to.data() + i * size);
  }
}

}  // namespace

void codes(nb::module_& m) {
  nb::class_<quant::Coded, Scorer>(m, "Coded", "A scorer over rows of codes.")
      .def_prop_ro("dims", &quant::Coded::dims)
      .def_prop_ro("panel_width", [](const quant::Coded& c) {
             const auto* panels = dynamic_cast<const PanelScorer*>(&c);
             return panels ? panels->panel_width(kernels::active()) : size_t{0};
           }, "Queries that rows are compared with at once, 0 where one after another.")
      .def("fill", &fill, "store"_a, "first"_a, "last"_a, "threads"_a = 0)
      .def("gather", &gather, "store"_a, "slots"_a.noconvert(), "nodes"_a.noconvert(), "threads"_a = 0)
      .def("encode", &encode, "first"_a, "vectors"_a.noconvert(), "threads"_a = 0)
      .def("decode", &decode, "first"_a, "out"_a.noconvert());

  nb::class_<quant::Codes, quant::Coded>(m, "Codes")
      .def(nb::new_(&make_codes), "rows"_a, "dim"_a, "dims"_a, "bits"_a, "per_vector"_a, "metric"_a, "norm_bound"_a,
           "center"_a.noconvert(), "step"_a.noconvert(), "matrix"_a.noconvert(), "matrix_scale"_a.noconvert(),
           "offset"_a.noconvert(), "mean"_a.noconvert())
      .def_static("row_bytes", [](size_t dims, int bits, bool per_vector, bool product) {
             quant::CodeSpec s;
             s.metric = product ? Metric::kDot : Metric::kL2;
             s.dims = dims;
             s.bits = bits;
             s.scale = per_vector ? quant::Scale::kVector : quant::Scale::kShared;
             return quant::Codes::row_bytes(s);
           }, "dims"_a, "bits"_a, "per_vector"_a, "product"_a = false);

  nb::class_<quant::Bounded, quant::Coded>(m, "Bounded", "Codes whose estimates have bounds.")
      .def("bounded_scores", &bounded_scores, "query"_a.noconvert(), "rows"_a.noconvert(), "bound"_a, "out"_a.noconvert(),
           "errors"_a.noconvert());
  nb::class_<quant::RaBitQ, quant::Bounded>(m, "RaBitQ")
      .def(nb::new_(&make_rabitq), "rows"_a, "dim"_a, "bits"_a, "metric"_a, "norm_bound"_a, "epsilon"_a,
           "center"_a.noconvert(), "signs"_a.noconvert())
      .def_static("row_bytes", &rabitq_row_bytes, "inputs"_a, "bits"_a);
  nb::class_<quant::Saq, quant::Bounded>(m, "Saq")
      .def(nb::new_(&make_saq), "rows"_a, "dim"_a, "metric"_a, "norm_bound"_a, "epsilon"_a, "rounds"_a,
           "center"_a.noconvert(), "axes"_a.noconvert(), "lengths"_a.noconvert(), "bits"_a.noconvert(),
           "variances"_a.noconvert(), "signs"_a.noconvert())
      .def_static("row_bytes", [](In<uint32_t, 1> lengths, In<uint8_t, 1> bits) {
             return quant::Saq::row_bytes(saq_segments(lengths, bits));
           }, "lengths"_a.noconvert(), "bits"_a.noconvert());

  nb::class_<quant::Additive, quant::Coded>(m, "Additive")
      .def(nb::new_(&make_additive), "rows"_a, "dim"_a, "metric"_a, "norm_bound"_a, "bits"_a, "residual"_a, "beam"_a,
           "center"_a.noconvert(), "codewords"_a.noconvert())
      .def_static("row_bytes", [](size_t dim, int metric, float norm_bound, size_t books, int bits, bool residual) {
             return quant::Additive::row_bytes(additive_spec(dim, metric, norm_bound, books, bits, residual, 1));
           }, "dim"_a, "metric"_a, "norm_bound"_a, "books"_a, "bits"_a, "residual"_a);

  nb::class_<quant::Binary, quant::Coded>(m, "Binary")
      .def(nb::new_(&make_binary), "rows"_a, "dim"_a, "metric"_a, "norm_bound"_a, "center"_a.noconvert(),
           "levels"_a.noconvert())
      .def_static("row_bytes", [](size_t dim, int metric, float norm_bound) {
             return quant::Binary::row_bytes(make_form(dim, metric, norm_bound));
           }, "dim"_a, "metric"_a, "norm_bound"_a);

  nb::class_<ListScorer>(m, "ListScorer", "Codes in the slots of inverted lists.");
  nb::class_<quant::Listed, ListScorer>(m, "Listed")
      .def(nb::new_(&make_listed), "centers"_a, "blocks"_a, "metric"_a, "matrix"_a.noconvert(), "matrix_scale"_a.noconvert(),
           "mean"_a.noconvert(), "codewords"_a.noconvert())
      .def_static("block_bytes", [](size_t dim, size_t dims, size_t books) {
             return listed_spec(dim, 0, dims, books).block_bytes();
           }, "dim"_a, "dims"_a, "books"_a)
      .def("fill", &fill_slots, "store"_a, "slots"_a.noconvert(), "nodes"_a.noconvert(), "lists"_a.noconvert(),
           "threads"_a = 0)
      .def("score", &score_slots, "query"_a.noconvert(), "slots"_a.noconvert(), "lists"_a.noconvert(), "out"_a.noconvert());

  nb::class_<quant::Map>(m, "Map", "What vectors go through before they are coded.")
      .def(nb::new_([](size_t inputs) {
             require(inputs >= 1 && inputs <= 32832, "Map: inputs out of range");
             return std::make_shared<quant::Map>(inputs);
           }), "inputs"_a)
      .def_prop_ro("outputs", &quant::Map::outputs)
      .def("add_leading", [](quant::Map& map, size_t n) {
             require(n >= 1 && n <= map.outputs(), "Map: leading coordinates that are not there");
             map.add_leading(n);
           }, "n"_a)
      .def("add_unit", &quant::Map::add_unit)
      .def("add_affine", &add_affine, "matrix"_a.noconvert(), "offset"_a.noconvert())
      .def("add_rotation", [](quant::Map& map, In<uint64_t, 1> signs) {
             require(signs.shape(0) == quant::Rotation::n_words(map.outputs()), "Map: four bits for each of 64 * m floats");
             map.add_rotation(quant::Rotation(map.outputs(), to_vector(signs)));
           }, "signs"_a.noconvert())
      .def("apply", &apply_map, "rows"_a.noconvert(), "with_offset"_a, "out"_a.noconvert(), "threads"_a = 0);

  nb::class_<quant::Alone, Scorer>(m, "Alone", "Codes that stand for vectors which are not kept.")
      .def(nb::new_([](std::shared_ptr<quant::Coded> codes, int metric, float norm_bound) {
             return std::make_shared<quant::Alone>(codes, metric_from(metric), norm_bound);
           }), "codes"_a, "metric"_a, "norm_bound"_a);

  nb::class_<quant::Mapped, quant::Coded>(m, "Mapped")
      .def(nb::new_(&make_mapped), "map"_a, "dim"_a, "metric"_a, "norm_bound"_a, "rest"_a, "center"_a.noconvert(),
           "codes"_a);

  m.def("draw_rotation", [](size_t dim, uint64_t seed, Out<uint64_t, 1> signs) {
    require(dim >= 1 && signs.shape(0) == quant::Rotation::n_words(dim), "draw_rotation: four bits for each of 64 * m floats");
    const std::vector<uint64_t> drawn = quant::Rotation::draw(dim, seed);
    std::copy(drawn.begin(), drawn.end(), signs.data());
  }, "dim"_a, "seed"_a, "signs"_a.noconvert());
  m.def("rotate_rows", &rotate_rows, "signs"_a.noconvert(), "rows"_a.noconvert(), "out"_a.noconvert(), "inverse"_a = false);
}

}  // namespace nearly::bind
