// CPU targets, and the kernels that Python uses directly or tests.
#include "kernels/table.hpp"

#include <algorithm>

#include "kernels/block.hpp"

#include "bind.hpp"

namespace nearly::bind {
namespace {

namespace k = nearly::kernels;

// One kernel by name on dense rows, for tests and benchmarks.
k::Rows rows_kernel(const std::string& name, int element, bool integers) {
  require(element >= 0 && element < k::kElements, "unknown element");
  const k::Table& t = k::active();
  if (integers) {
    require(element >= k::kInt8 && (name == "l2" || name == "ip"), "integer kernels: l2 and ip of int8 and uint8");
    if (name == "l2") return element == k::kInt8 ? t.l2_squared_i8 : t.l2_squared_u8;
    return element == k::kInt8 ? t.dot_i8 : t.dot_u8;
  }
  if (name == "l2") return t.l2_squared[element];
  if (name == "ip") return t.dot[element];
  if (name == "cosine") return t.cosine[element];
  if (name == "l1") return t.l1[element];
  if (name == "hamming") return t.hamming;
  if (name == "jaccard") return t.jaccard;
  throw nb::value_error("unknown kernel");
}

void distances(const std::string& name, int element, bool integers, In<uint8_t, 1> query, In<uint8_t, 2> rows,
               size_t size, Out<float, 1> out, nb::object chosen) {
  const k::Rows kernel = rows_kernel(name, element, integers);
  const bool bits = name == "hamming" || name == "jaccard";
  const size_t stored = bits ? 1 : element == 0 ? 4 : element <= 2 ? 2 : 1;
  const size_t row_bytes = name == "cosine" ? (size * stored + 3) / 4 * 4 + 4 : size * stored;
  require(size <= 32768 && rows.shape(1) >= row_bytes && query.shape(0) >= size * (bits || integers ? 1 : 4),
          "distances: rows, query and size disagree");
  if (chosen.is_none()) {
    require(out.shape(0) == rows.shape(0), "distances: rows and out disagree");
    nb::gil_scoped_release release;
    kernel(query.data(), rows.data(), rows.shape(1), nullptr, rows.shape(0), size, out.data());
    return;
  }
  const auto which = nb::cast<In<uint32_t, 1>>(chosen);
  require(out.shape(0) == which.shape(0), "distances: chosen and out disagree");
  for (size_t i = 0; i < which.shape(0); ++i) require(which.data()[i] < rows.shape(0), "distances: row out of range");
  nb::gil_scoped_release release;
  kernel(query.data(), rows.data(), rows.shape(1), which.data(), which.shape(0), size, out.data());
}

void dots(In<int8_t, 1> query, In<uint8_t, 2> rows, int bits, Out<int32_t, 1> out) {
  require(rows.shape(0) == out.shape(0) && (bits == 8 || bits == 4) &&
              query.shape(0) == rows.shape(1) * (bits == 8 ? 1 : 2), "dots: query, rows and out disagree");
  (bits == 8 ? k::active().dots8 : k::active().dots4)(query.data(), rows.data(), rows.shape(1), nullptr, rows.shape(0),
                                                       rows.shape(1), out.data());
}

void code_distances(In<int8_t, 1> query, In<uint8_t, 2> rows, int bits, float constant, float factor, Out<float, 1> out) {
  require(rows.shape(0) == out.shape(0) && (bits == 8 || bits == 4) && rows.shape(1) >= 4 &&
              query.shape(0) == rows.shape(1) * (bits == 8 ? 1 : 2), "code_distances: query, rows and out disagree");
  (bits == 8 ? k::active().codes8 : k::active().codes4)(query.data(), rows.data(), rows.shape(1), nullptr, rows.shape(0),
                                                        constant, factor, out.data());
}

int32_t halve(In<uint8_t, 1> codes, Out<int8_t, 1> out) {
  require(codes.shape(0) == out.shape(0), "halve: codes and out disagree");
  return k::active().halve(codes.data(), codes.shape(0), out.data());
}

// The bookkeeping of walks, for tests: neighbors not met before, candidates within a bound, a merge into a pool.
std::vector<uint32_t> unseen(In<uint32_t, 1> list, size_t n_nodes, Out<uint64_t, 1> seen) {
  require(n_nodes <= seen.shape(0) * 64, "unseen: a bit a node");
  std::vector<uint32_t> out(list.shape(0) + 1);
  out.resize(k::active().unseen(list.data(), list.shape(0), n_nodes, seen.data(), out.data()));
  return out;
}

std::vector<uint32_t> unseen_passing(In<uint32_t, 1> list, In<uint64_t, 1> bits, size_t n_bits, Out<uint64_t, 1> seen) {
  require(n_bits <= bits.shape(0) * 64 && n_bits <= seen.shape(0) * 64, "unseen_passing: a bit a node");
  std::vector<uint32_t> out(list.shape(0) + 1);
  out.resize(k::active().unseen_passing(list.data(), list.shape(0), n_bits, seen.data(), bits.data(), out.data()));
  return out;
}

std::vector<int64_t> within(In<float, 1> distances, In<uint32_t, 1> rows, float bound) {
  require(distances.shape(0) == rows.shape(0), "within: one row a distance");
  std::vector<int64_t> out(rows.shape(0) + 1);
  out.resize(k::active().within(distances.data(), rows.data(), rows.shape(0), bound, out.data()));
  return out;
}

std::pair<std::vector<int64_t>, size_t> merge(const std::vector<int64_t>& pool, size_t width,
                                              const std::vector<int64_t>& fresh) {
  require(width >= 1 && width <= (size_t{1} << 20) && pool.size() <= width, "merge: the pool is wider than its width");
  std::vector<int64_t> merged(width);
  std::copy(pool.begin(), pool.end(), merged.begin());
  const k::Merged result = k::active().merge(merged.data(), pool.size(), width, fresh.data(), fresh.size());
  merged.resize(result.size);
  return {merged, result.first};
}

// Codes of `bits` bits in units of 64 dimensions; `chosen`: rows in this order.
void packed_dots(In<int8_t, 1> query, In<uint8_t, 2> rows, int bits, Out<int32_t, 1> out,
                 std::optional<In<uint32_t, 1>> chosen) {
  require(bits >= 1 && bits <= 8, "packed_dots: 1 to 8 bits");
  const size_t units = query.shape(0) / 64, n = chosen ? chosen->shape(0) : rows.shape(0);
  require(query.shape(0) % 64 == 0 && rows.shape(1) >= units * 8 * static_cast<size_t>(bits) && out.shape(0) == n,
          "packed_dots: query, rows and out disagree");
  if (chosen)
    for (size_t i = 0; i < n; ++i) require(chosen->data()[i] < rows.shape(0), "packed_dots: row out of range");
  nb::gil_scoped_release release;
  k::active().packed[bits - 1](query.data(), rows.data(), rows.shape(1), chosen ? chosen->data() : nullptr, n, units,
                               out.data());
}

// In place, row by row.
void rotate(Out<float, 2> rows, In<uint64_t, 1> signs) {
  const size_t dim = rows.shape(1);
  require(dim >= 64 && dim % 64 == 0 && signs.shape(0) == dim / 16, "rotate: rows of 64 * m floats, 4 * m words of signs");
  nb::gil_scoped_release release;
  for (size_t i = 0; i < rows.shape(0); ++i) k::active().rotate(rows.data() + i * dim, signs.data(), dim);
}

// Grids are rows of a share of the scale, a top, two weights, the fine steps to 1 and their inverse.
void sweep(In<float, 1> magnitudes, float scale, In<float, 2> grids, Out<float, 1> out) {
  const size_t units = grids.shape(0);
  require(magnitudes.shape(0) == units * 64 && grids.shape(1) == 6 && out.shape(0) == 2,
          "sweep: 64 magnitudes and a grid for each unit, two sums");
  k::active().sweep(magnitudes.data(), units, scale, reinterpret_cast<const k::Grid*>(grids.data()), out.data());
}

// The same sums by fine steps, for each scale; and those that the inverse of a scale clips.
void fine_sweeps(In<float, 1> magnitudes, In<float, 1> scales, float inverse, In<float, 2> grids, Out<float, 2> out,
                 Out<float, 1> clipped) {
  const size_t units = grids.shape(0), n = scales.shape(0);
  require(magnitudes.shape(0) == units * 64 && grids.shape(1) == 6 && n <= k::kTries && out.shape(0) == n &&
              out.shape(1) == 2 && clipped.shape(0) == 2, "fine_sweeps: 64 magnitudes and a grid for each unit, two sums for each scale");
  const auto* of = reinterpret_cast<const k::Grid*>(grids.data());
  std::vector<int16_t> fine(units * 64);
  k::active().fine_steps(magnitudes.data(), units, of, fine.data());
  k::active().tries(fine.data(), units, scales.data(), n, of, out.data());
  k::active().clipped(fine.data(), units, inverse, of, clipped.data());
}

// Rows of codes, leading bits first.
void cut(In<float, 1> magnitudes, In<int32_t, 1> signs, float scale, int lead, int further, Out<uint8_t, 1> out) {
  const size_t units = magnitudes.shape(0) / 64;
  require(magnitudes.shape(0) == units * 64 && signs.shape(0) == units * 64 && lead >= 1 && lead <= 8 && further >= 0 &&
              further <= 8 && out.shape(0) == units * 8 * static_cast<size_t>(lead + further),
          "cut: 64 magnitudes and signs for each unit, up to 8 leading and 8 further bits");
  k::active().cut(magnitudes.data(), signs.data(), units, scale, lead, further, out.data(),
                  out.data() + units * 8 * static_cast<size_t>(lead));
}

void fastscan(In<uint8_t, 2> tables, In<uint8_t, 3> packed, Out<uint16_t, 2> out) {
  const size_t groups = tables.shape(0), blocks = packed.shape(0);
  require(tables.shape(1) == 16 && packed.shape(1) == groups && packed.shape(2) == 16 && out.shape(0) == blocks &&
              out.shape(1) == 32, "fastscan: tables, packed and out disagree");
  require(groups % 2 == 0 && groups <= k::kLookups, "fastscan: an even number of groups, at most 256");
  nb::gil_scoped_release release;
  k::active().fastscan(tables.data(), packed.data(), groups, blocks, out.data());
}

void project(In<int16_t, 2> queries, In<int8_t, 1> matrix, Out<int32_t, 2> out) {
  const size_t n = queries.shape(0), dim = queries.shape(1), outputs = out.shape(1);
  require(out.shape(0) == n && dim % 2 == 0 && outputs % 16 == 0 && matrix.shape(0) == dim * outputs,
          "project: shapes disagree");
  k::active().project(queries.data(), n, matrix.data(), dim, outputs, out.data());
}

// out = rows @ columns.T in float32; each output is one sum in order, whatever the threads.
void products(In<float, 2> rows, In<float, 2> columns, Out<float, 2> out, size_t threads) {
  const size_t n = rows.shape(0), m = columns.shape(0), dim = rows.shape(1);
  require(columns.shape(1) == dim && out.shape(0) == n && out.shape(1) == m, "products: shapes disagree");
  if (n == 0 || m == 0) return;
  nb::gil_scoped_release release;
  k::multiply(rows.data(), n, columns.data(), m, dim, out.data(), threads, poll());
}

// The steps of exact batches, for tests. Stored elements as floats:
void widen(In<uint8_t, 1> row, int element, float scale, Out<float, 1> out) {
  require(element >= 0 && element < k::kElements, "unknown element");
  require(row.shape(0) == out.shape(0) * (element == k::kFloat32 ? 4 : element <= k::kBfloat16 ? 2 : 1),
          "widen: row and out disagree");
  k::active().widen[element](row.data(), out.shape(0), scale, out.data());
}

// x -= center; returns |x|^2.
double center(Out<float, 1> x, In<float, 1> center) {
  require(x.shape(0) == center.shape(0), "center: x and center disagree");
  return k::active().center(x.data(), center.data(), x.shape(0));
}

void round16(In<float, 1> x, float scale, Out<int16_t, 1> out) {
  require(x.shape(0) == out.shape(0), "round16: x and out disagree");
  k::active().round16(x.data(), x.shape(0), scale, out.data());
}

// For each panel of columns the tile of its products: out is (panels, rows, columns of a panel).
void whole_products(In<int16_t, 2> rows, In<int16_t, 2> columns, Out<int32_t, 3> out) {
  require(rows.shape(1) == columns.shape(1) && rows.shape(1) % 2 == 0, "whole_products: an even number of elements");
  const k::PackedWhole packed(columns.data(), columns.shape(0), columns.shape(1));
  require(out.shape(0) == packed.panels() && out.shape(1) == rows.shape(0) && out.shape(2) == packed.width(),
          "whole_products: out is (panels, rows, columns of a panel)");
  k::PackedWhole::Rows taken;
  packed.take(rows.data(), rows.shape(0), &taken);
  for (size_t p = 0; p < packed.panels(); ++p)
    packed.multiply(taken, p, 1, out.data() + p * rows.shape(0) * packed.width(), packed.width());
}

// Pairs of a row and a bit for each column.
std::vector<std::pair<uint32_t, uint32_t>> reaching(In<int32_t, 2> tile, In<float, 1> row_floor, In<float, 1> row_scale,
                                                    In<float, 1> floor, In<float, 1> scale, float allowance) {
  const size_t n = tile.shape(0), width = k::active().panel;
  require(tile.shape(1) == width && floor.shape(0) == width && scale.shape(0) == width && row_floor.shape(0) == n &&
              row_scale.shape(0) == n, "reaching: the tile of a panel, a floor and a scale for each row and column");
  std::vector<k::Reached> out(n + 1);
  out.resize(k::active().reaching(tile.data(), n, row_floor.data(), row_scale.data(), floor.data(), scale.data(), allowance,
                                  out.data()));
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  for (const k::Reached& each : out) pairs.emplace_back(each.row, each.columns);
  return pairs;
}

// labels[i] = the center nearest to row i, the first of equals; distances[i] = |row - center|^2.
void nearest_centers(In<float, 2> rows, In<float, 2> centers, Out<uint32_t, 1> labels, Out<float, 1> distances,
                     size_t threads) {
  const size_t n = rows.shape(0), m = centers.shape(0), dim = rows.shape(1);
  require(dim >= 1 && centers.shape(1) == dim && m >= 1 && m < (size_t{1} << 31) && labels.shape(0) == n &&
              distances.shape(0) == n, "nearest_centers: shapes disagree");
  nb::gil_scoped_release release;
  const k::Centers packed(centers.data(), m, dim);
  parallel_for(n, 48, threads, [&](size_t begin, size_t end) {
    float* distance = distances.data() + begin;
    packed.nearest(rows.data() + begin * dim, dim, end - begin, labels.data() + begin, distance);
    for (size_t i = begin; i < end; ++i, ++distance) {
      const float* x = rows.data() + i * dim;
      double square = 0;
      for (size_t j = 0; j < dim; ++j) square += static_cast<double>(x[j]) * x[j];
      *distance = static_cast<float>(std::max(0.0, square - 2.0 * *distance));
    }
  }, poll());
}

// sums[labels[i]] += row i, in order of i: the same bits for any threads, each of which adds up some columns.
void sum_by_label(In<float, 2> rows, In<uint32_t, 1> labels, Out<double, 2> sums, size_t threads) {
  const size_t n = rows.shape(0), dim = rows.shape(1);
  require(labels.shape(0) == n && sums.shape(1) == dim, "sum_by_label: shapes disagree");
  for (size_t i = 0; i < n; ++i) require(labels.data()[i] < sums.shape(0), "sum_by_label: label out of range");
  nb::gil_scoped_release release;
  parallel_for(dim, 64, threads, [&](size_t begin, size_t end) {
    for (size_t i = 0; i < n; ++i) {
      double* sum = sums.data() + labels.data()[i] * dim;
      for (size_t j = begin; j < end; ++j) sum[j] += rows.data()[i * dim + j];
    }
  }, poll());
}

// Row of the first NaN or infinity in a matrix of float32 or float16 (or bfloat16 held as uint16), or -1.
int64_t first_nonfinite(nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu> rows, bool bfloat16) {
  int element = -1;
  if (rows.dtype() == nb::dtype<float>()) element = k::kFloat32;
  if (rows.itemsize() == 2) element = bfloat16 ? k::kBfloat16 : k::kFloat16;
  require(element >= 0, "first_nonfinite: float32, float16 or bfloat16");
  const size_t n = rows.shape(0), size = rows.shape(1), stride = size * rows.itemsize();
  const auto* base = static_cast<const uint8_t*>(rows.data());
  const Poll check = poll();
  nb::gil_scoped_release release;
  for (size_t first = 0, block = (size_t{1} << 22) / (stride + 1) + 1; first < n; first += block) {
    const size_t count = std::min(block, n - first);
    const size_t at = k::active().first_nonfinite[element](base + first * stride, stride, count, size);
    if (at < count) return static_cast<int64_t>(first + at);
    poll_if_due(check);
  }
  return -1;
}

}  // namespace

void kernels(nb::module_& m) {
  try {
    k::active();  // NEARLY_SIMD may name a target that is not there: said when nearly is imported, not in some later call
  } catch (const std::invalid_argument& error) {
    throw nb::import_error(error.what());
  }
  m.def("simd_target", [] { return std::string(k::active().name); });
  m.def("simd_targets", [] {
    std::vector<std::string> names;
    for (const char* const* name = k::available(); *name; ++name) names.emplace_back(*name);
    return names;
  });
  m.def("use_simd_target", [](const std::string& name) { return k::use(name.c_str()); }, "name"_a);
  m.def("distances", &distances, "name"_a, "element"_a, "integers"_a, "query"_a.noconvert(), "rows"_a.noconvert(),
        "size"_a, "out"_a.noconvert(), "chosen"_a = nb::none());
  m.def("dots", &dots, "query"_a.noconvert(), "rows"_a.noconvert(), "bits"_a, "out"_a.noconvert());
  m.def("code_distances", &code_distances, "query"_a.noconvert(), "rows"_a.noconvert(), "bits"_a, "constant"_a,
        "factor"_a, "out"_a.noconvert());
  m.def("halve", &halve, "codes"_a.noconvert(), "out"_a.noconvert());
  m.def("unseen", &unseen, "list"_a.noconvert(), "n_nodes"_a, "seen"_a.noconvert());
  m.def("unseen_passing", &unseen_passing, "list"_a.noconvert(), "bits"_a.noconvert(), "n_bits"_a, "seen"_a.noconvert());
  m.def("within", &within, "distances"_a.noconvert(), "rows"_a.noconvert(), "bound"_a);
  m.def("merge", &merge, "pool"_a, "width"_a, "fresh"_a);
  m.def("packed_dots", &packed_dots, "query"_a.noconvert(), "rows"_a.noconvert(), "bits"_a, "out"_a.noconvert(),
        "chosen"_a.noconvert() = nb::none());
  m.def("rotate", &rotate, "rows"_a.noconvert(), "signs"_a.noconvert());
  m.def("sweep", &sweep, "magnitudes"_a.noconvert(), "scale"_a, "grids"_a.noconvert(), "out"_a.noconvert());
  m.def("fine_sweeps", &fine_sweeps, "magnitudes"_a.noconvert(), "scales"_a.noconvert(), "inverse"_a,
        "grids"_a.noconvert(), "out"_a.noconvert(), "clipped"_a.noconvert());
  m.def("cut", &cut, "magnitudes"_a.noconvert(), "signs"_a.noconvert(), "scale"_a, "lead"_a, "further"_a, "out"_a.noconvert());
  m.def("fastscan", &fastscan, "tables"_a.noconvert(), "packed"_a.noconvert(), "out"_a.noconvert());
  m.def("project", &project, "queries"_a.noconvert(), "matrix"_a.noconvert(), "out"_a.noconvert());
  m.def("products", &products, "rows"_a.noconvert(), "columns"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0);
  m.def("widen", &widen, "row"_a.noconvert(), "element"_a, "scale"_a, "out"_a.noconvert());
  m.def("center", &center, "x"_a.noconvert(), "center"_a.noconvert());
  m.def("round16", &round16, "x"_a.noconvert(), "scale"_a, "out"_a.noconvert());
  m.def("panel_width", [] { return k::active().panel; });
  m.def("whole_products", &whole_products, "rows"_a.noconvert(), "columns"_a.noconvert(), "out"_a.noconvert());
  m.def("reaching", &reaching, "tile"_a.noconvert(), "row_floor"_a.noconvert(), "row_scale"_a.noconvert(),
        "floor"_a.noconvert(), "scale"_a.noconvert(), "allowance"_a);
  m.def("nearest_centers", &nearest_centers, "rows"_a.noconvert(), "centers"_a.noconvert(), "labels"_a.noconvert(),
        "distances"_a.noconvert(), "threads"_a = 0);
  m.def("sum_by_label", &sum_by_label, "rows"_a.noconvert(), "labels"_a.noconvert(), "sums"_a.noconvert(),
        "threads"_a = 0);
  m.def("first_nonfinite", &first_nonfinite, "rows"_a.noconvert(), "bfloat16"_a = false,
        nb::sig("def first_nonfinite(rows: numpy.typing.NDArray[numpy.generic], bfloat16: bool = False) -> int"));
}

}  // namespace nearly::bind
