// Exact scans.
#include <algorithm>

#include "base/bits.hpp"
#include "lists/blocks.hpp"
#include "lists/bounded.hpp"
#include "lists/scan.hpp"
#include "quant/coded.hpp"
#include "quant/plain.hpp"

#include "answer.hpp"
#include "bind.hpp"

namespace nearly::bind {
namespace {

using Words = std::optional<In<uint64_t, 1>>;

constexpr size_t kMostAsked = size_t{1} << 31;  // neighbors of one query

lists::Request request(In<uint8_t, 2> queries, size_t k, int metric, const Words& filter, size_t threads) {
  lists::Request r{};
  r.queries = queries.data();
  r.query_bytes = queries.shape(1);
  r.n = queries.shape(0);
  r.k = k;
  r.threads = threads;
  r.metric = metric_from(metric);
  if (filter) r.filter = {filter->data(), filter->shape(0) * 64};
  return r;
}

// The same with places for answers, if there are as many as queries, and the scorer is for them and for so many nodes.
lists::Request request(const Scorer& scorer, const Rows& rows, size_t n_nodes, size_t query_bytes, In<uint8_t, 2> queries,
                       int metric, Out<int64_t, 2> ids, Out<float, 2> distances, Out<uint32_t, 1> counts, const Words& filter,
                       size_t threads) {
  const size_t n = queries.shape(0), k = ids.shape(1);
  require(queries.shape(1) == query_bytes && query_bytes == scorer.query_bytes() && ids.shape(0) == n &&
              distances.shape(0) == n && distances.shape(1) == k && counts.shape(0) == n && n_nodes <= scorer.n_rows() &&
              n_nodes <= rows.first_rows()->rows(),
          "scan: shapes disagree");
  lists::Request r = request(queries, k, metric, filter, threads);
  r.ids = ids.data();
  r.distances = distances.data();
  r.counts = counts.data();
  return r;
}

// One query, and a place for its answer.
lists::Request request(const FloatRow& query, size_t query_bytes, size_t k, int metric, Answer& answer, uint32_t& count) {
  lists::Request r{};
  r.queries = query.bytes();
  r.query_bytes = query_bytes;
  r.n = 1;
  r.k = k;
  r.threads = 1;
  r.metric = metric_from(metric);
  r.ids = answer.ids();
  r.distances = answer.distances();
  r.counts = &count;
  return r;
}

std::vector<Row> chosen_of(In<uint32_t, 1> only, size_t n_nodes) {
  std::vector<Row> chosen(only.data(), only.data() + only.shape(0));
  require(std::all_of(chosen.begin(), chosen.end(), [&](Row row) { return row < n_nodes; }),
          "scan: a chosen node does not exist");
  return chosen;
}

// An exact scan of all nodes, or some; returns how many distances were computed. Products by blocks, where the metric is
// made of products and, unless that is said, queries are enough to share what rows take to become whole numbers: of few
// rows, more queries (levers table of benchmarks/README.md).
uint64_t scan_exactly(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only,
                      const lists::Request& r, std::optional<bool> by_blocks = std::nullopt) {
  const auto* plain = dynamic_cast<const quant::Plain*>(&scorer);
  const size_t looked_at = only ? only->size() : n_nodes;
  const bool enough = by_blocks.value_or(r.n > 16 && looked_at >= 128 && (r.n - 16) * looked_at >= 5000);
  const bool products = r.metric == Metric::kL2 || r.metric == Metric::kCosine || r.metric == Metric::kDot;
  if (!(enough && plain && products && r.metric == plain->metric())) return lists::scan(scorer, rows, n_nodes, only, r, poll());
  const lists::Dense dense{plain->dim(),
                           [&](const Row* nodes, size_t count, float* out) { plain->decode(nodes, count, out); },
                           [&](const void* q, float* out) { plain->to_form(static_cast<const float*>(q), out); }};
  return lists::scan_blocks(scorer, dense, rows, n_nodes, only, r, poll());
}

// Returns how many distances were computed; None when `rows` were retired: their successors are to be scanned then.
std::optional<uint64_t> scan(const Scorer& scorer, const Rows& rows, size_t n_nodes, size_t query_bytes,
                             In<uint8_t, 2> queries, int metric, Out<int64_t, 2> ids, Out<float, 2> distances,
                             Out<uint32_t, 1> counts, Words filter, std::optional<In<uint32_t, 1>> only, size_t threads,
                             std::optional<bool> blocks) {
  const lists::Request r =
      request(scorer, rows, n_nodes, query_bytes, queries, metric, ids, distances, counts, filter, threads);
  if (r.k == 0) return std::fill_n(counts.data(), r.n, 0u), 0;
  const std::vector<Row> chosen = only ? chosen_of(*only, n_nodes) : std::vector<Row>{};
  nb::gil_scoped_release release;
  return unless_retired([&] { return scan_exactly(scorer, rows, n_nodes, only ? &chosen : nullptr, r, blocks); });
}

// As scan, by codes whose bounds are made `times` as wide as they have them; returns how many codes and how many vectors
// were compared.
std::optional<std::pair<uint64_t, uint64_t>> scan_bounded(
    const Scorer& scorer, const quant::Bounded& codes, float times, const Rows& rows, size_t n_nodes, size_t query_bytes,
    In<uint8_t, 2> queries, int metric, Out<int64_t, 2> ids, Out<float, 2> distances, Out<uint32_t, 1> counts, Words filter,
    size_t threads) {
  const lists::Request r =
      request(scorer, rows, n_nodes, query_bytes, queries, metric, ids, distances, counts, filter, threads);
  require(r.k >= 1 && query_bytes == codes.query_bytes() && n_nodes <= codes.n_rows() && times >= 0,
          "scan_bounded: shapes disagree");
  const lists::Bounds bounds{codes.prepared_bytes(),
                             [&](const void* query, void* prepared) {
                               codes.prepare(query, prepared);
                               codes.widen(prepared, times);
                             },
                             [&](const void* prepared, Row first, size_t count, float bound, float* out) {
                               codes.lower(prepared, first, count, bound, out);
                             }};
  nb::gil_scoped_release release;
  return unless_retired([&] {
    const lists::Compared compared = lists::scan_bounded(scorer, bounds, rows, n_nodes, r, poll());
    return std::make_pair(compared.by_codes, compared.by_vectors);
  });
}

// As scan, by codes first; returns how many codes and how many vectors were compared.
std::optional<std::pair<uint64_t, uint64_t>> scan_coded(
    const Scorer& scorer, const Scorer& codes, float spread, const Rows& rows, size_t n_nodes, size_t query_bytes,
    In<uint8_t, 2> queries, int metric, Out<int64_t, 2> ids, Out<float, 2> distances, Out<uint32_t, 1> counts, Words filter,
    std::optional<In<uint32_t, 1>> only, size_t threads) {
  const lists::Request r =
      request(scorer, rows, n_nodes, query_bytes, queries, metric, ids, distances, counts, filter, threads);
  require(r.k >= 1 && query_bytes == codes.query_bytes() && n_nodes <= codes.n_rows() && spread >= 0,
          "scan_coded: shapes disagree");
  require(!filter || only, "scan_coded: a filter comes with the nodes that it means");  // the nearest are found by code first
  const std::vector<Row> chosen = only ? chosen_of(*only, n_nodes) : std::vector<Row>{};
  nb::gil_scoped_release release;
  return unless_retired([&] {
    const lists::Compared compared =
        lists::scan_coded(scorer, {&codes, spread}, rows, n_nodes, only ? &chosen : nullptr, r, poll());
    return std::make_pair(compared.by_codes, compared.by_vectors);
  });
}

// One float32 query of a few vectors: what `search_one` is for graphs.
nb::object scan_one(const Scorer& scorer, const Rows& rows, size_t n_nodes, nb::handle asked, size_t k, int metric,
                    size_t n_live) {
  require(n_nodes <= scorer.n_rows() && n_nodes <= rows.first_rows()->rows() && k >= 1 && k <= kMostAsked,
          "scan_one: shapes disagree");
  const FloatRow query(asked, scorer.query_bytes() / 4);
  if (!query) return nb::none();
  Answer answer(k);
  uint32_t count = 0;
  const lists::Request r = request(query, scorer.query_bytes(), k, metric, answer, count);
  std::optional<uint64_t> compared;
  {
    nb::gil_scoped_release release;
    compared = unless_retired([&] { return lists::scan(scorer, rows, n_nodes, nullptr, r, poll()); });
  }
  if (!compared || count < std::min(k, n_live)) return nb::none();
  return answer.done(count, {*compared, 0, 0});
}

// A scan of chosen nodes for one query after the other, or for many at once, by codes of them first where there are some. What
// does not depend on queries is looked at once.
class ChosenScan {
 public:
  ChosenScan(std::shared_ptr<Scorer> scorer, std::shared_ptr<Scorer> codes, float spread, std::shared_ptr<Rows> rows,
             size_t n_nodes, size_t k, int metric, In<uint64_t, 1> filter, In<uint64_t, 1> nodes, size_t n_wanted)
      : scorer_(std::move(scorer)), codes_(std::move(codes)), spread_(spread), rows_(std::move(rows)), n_nodes_(n_nodes),
        k_(k), metric_(metric), filter_(filter), n_wanted_(std::min(k, n_wanted)) {
    require(scorer_ && rows_ && n_nodes <= scorer_->n_rows() && n_nodes <= rows_->first_rows()->rows() && spread >= 0 &&
                k >= 1 && k <= kMostAsked &&
                (!codes_ || (n_nodes <= codes_->n_rows() && codes_->query_bytes() == scorer_->query_bytes())),
            "ChosenScan: shapes disagree");
    metric_from(metric);
    chosen_ = set_below(nodes.data(), nodes.shape(0), n_nodes);
  }

  nb::object find(nb::handle asked) const {
    const FloatRow query(asked, scorer_->query_bytes() / 4);
    if (!query) return nb::none();
    Answer answer(k_);
    uint32_t count = 0;
    lists::Request r = request(query, scorer_->query_bytes(), k_, metric_, answer, count);
    const std::optional<lists::Compared> compared = scan(r);
    if (!compared || count < n_wanted_) return nb::none();
    return answer.done(count, {compared->by_codes, 0, compared->by_vectors});
  }

  nb::object find_many(nb::handle asked, Out<int64_t, 2> ids, Out<float, 2> distances, size_t threads) const {
    const FloatRows queries(asked, scorer_->query_bytes() / 4, 2);
    if (!queries) return nb::none();
    require(ids.shape(0) == queries.n() && distances.shape(0) == queries.n() && ids.shape(1) == k_ && distances.shape(1) == k_,
            "find_many: shapes disagree");
    std::vector<uint32_t> counts(queries.n());
    lists::Request r{};
    r.queries = queries.bytes();
    r.query_bytes = queries.stride();
    r.n = queries.n();
    r.k = k_;
    r.threads = threads;
    r.metric = metric_from(metric_);
    r.ids = ids.data();
    r.distances = distances.data();
    r.counts = counts.data();
    const std::optional<lists::Compared> compared = scan(r);
    const auto enough = [&](uint32_t count) { return count >= n_wanted_; };
    if (!compared || !std::all_of(counts.begin(), counts.end(), enough)) return nb::none();
    return nb::make_tuple(compared->by_codes, 0, compared->by_vectors);
  }

 private:
  std::optional<lists::Compared> scan(lists::Request& r) const {
    r.filter = {filter_.data(), filter_.shape(0) * 64};
    nb::gil_scoped_release release;
    return unless_retired([&] {
      if (codes_) return lists::scan_coded(*scorer_, {codes_.get(), spread_}, *rows_, n_nodes_, &chosen_, r, poll());
      return lists::Compared{scan_exactly(*scorer_, *rows_, n_nodes_, &chosen_, r), 0};
    });
  }

  const std::shared_ptr<Scorer> scorer_, codes_;
  const float spread_;
  const std::shared_ptr<Rows> rows_;
  const size_t n_nodes_, k_;
  const int metric_;
  const In<uint64_t, 1> filter_;
  const size_t n_wanted_;
  std::vector<Row> chosen_;
};

template <typename T> using Flat = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <typename T> Flat<T> to_array(const std::vector<std::vector<T>>& parts, size_t total) {
  auto* flat = new std::vector<T>;
  flat->reserve(total);
  for (const auto& part : parts) flat->insert(flat->end(), part.begin(), part.end());
  nb::capsule owner(flat, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return Flat<T>(flat->data(), {total}, owner);
}

// As scan: None when `rows` were retired.
std::optional<std::tuple<Flat<int64_t>, Flat<float>, Flat<int64_t>>> scan_radius(
    const Scorer& scorer, const Rows& rows, size_t n_nodes, size_t query_bytes, In<uint8_t, 2> queries, int metric,
    float radius, Words filter, size_t threads) {
  require(queries.shape(1) == query_bytes && query_bytes == scorer.query_bytes() && n_nodes <= scorer.n_rows() && n_nodes <= rows.first_rows()->rows(),
          "scan_radius: shapes disagree");
  const lists::Request r = request(queries, 0, metric, filter, threads);
  std::optional<lists::Ragged> answer;
  {
    nb::gil_scoped_release release;
    answer = unless_retired([&] { return lists::scan_radius(scorer, rows, n_nodes, radius, r, poll()); });
  }
  if (!answer) return std::nullopt;
  const lists::Ragged& found = *answer;
  std::vector<std::vector<int64_t>> offsets(1, std::vector<int64_t>(r.n + 1, 0));
  for (size_t q = 0; q < r.n; ++q) offsets[0][q + 1] = offsets[0][q] + static_cast<int64_t>(found.ids[q].size());
  const auto total = static_cast<size_t>(offsets[0][r.n]);
  return std::make_tuple(to_array(found.ids, total), to_array(found.distances, total), to_array(offsets, r.n + 1));
}

}  // namespace

void lists(nb::module_& m) {
  m.def("scan", &scan, "scorer"_a, "rows"_a, "n_nodes"_a, "query_bytes"_a, "queries"_a.noconvert(), "metric"_a,
        "ids"_a.noconvert(), "distances"_a.noconvert(), "counts"_a.noconvert(), "filter"_a.noconvert() = nb::none(),
        "only"_a.noconvert() = nb::none(), "threads"_a = 0, "blocks"_a = nb::none());
  m.def("scan_bounded", &scan_bounded, "scorer"_a, "codes"_a, "times"_a, "rows"_a, "n_nodes"_a, "query_bytes"_a,
        "queries"_a.noconvert(), "metric"_a, "ids"_a.noconvert(), "distances"_a.noconvert(), "counts"_a.noconvert(),
        "filter"_a.noconvert() = nb::none(), "threads"_a = 0);
  m.def("scan_coded", &scan_coded, "scorer"_a, "codes"_a, "spread"_a, "rows"_a, "n_nodes"_a, "query_bytes"_a,
        "queries"_a.noconvert(), "metric"_a, "ids"_a.noconvert(), "distances"_a.noconvert(), "counts"_a.noconvert(),
        "filter"_a.noconvert() = nb::none(), "only"_a.noconvert() = nb::none(), "threads"_a = 0);
  m.def("scan_one", &scan_one, nb::sig("def scan_one(scorer: Scorer, rows: Rows, n_nodes: int, query: object, k: int, "
                                       "metric: int, n_live: int, /) -> bytearray | None"));
  nb::class_<ChosenScan>(m, "ChosenScan", "A scan of chosen nodes for one query after the other, made ready.")
      .def(nb::init<std::shared_ptr<Scorer>, std::shared_ptr<Scorer>, float, std::shared_ptr<Rows>, size_t, size_t, int,
                    In<uint64_t, 1>, In<uint64_t, 1>, size_t>(),
           "scorer"_a, "codes"_a.none(), "spread"_a, "rows"_a, "n_nodes"_a, "k"_a, "metric"_a, "filter"_a.noconvert(),
           "nodes"_a.noconvert(), "n_wanted"_a)
      .def("find", &ChosenScan::find, nb::sig("def find(self, query: object, /) -> bytearray | None"),
           "The nearest of those chosen; None where they are fewer than wanted, or were retired.")
      .def("find_many", &ChosenScan::find_many,
           nb::sig("def find_many(self, queries: object, ids: NDArray[numpy.int64], distances: NDArray[numpy.float32], "
                   "threads: int, /) -> tuple[int, int, int] | None"),
           "The same for each row of queries, written to `ids` and `distances`; None also where some are not finite.");
  m.def("scan_radius", &scan_radius, "scorer"_a, "rows"_a, "n_nodes"_a, "query_bytes"_a, "queries"_a.noconvert(),
        "metric"_a, "radius"_a, "filter"_a.noconvert() = nb::none(), "threads"_a = 0);
}

}  // namespace nearly::bind
