// Graphs: searching, building, repairing.
#include "graph/index.hpp"

#include <algorithm>
#include <functional>

#include "answer.hpp"
#include "bind.hpp"

namespace nearly::bind {
namespace {

using graph::GraphIndex;
using Words = std::optional<In<uint64_t, 1>>;

graph::BuildRules rules(size_t beam, size_t new_degree, float alpha, size_t max_candidates, bool keep_old, bool fill,
                        size_t threads) {
  require(beam >= 1 && beam <= 65536 && new_degree >= 1 && alpha >= 1.0f && max_candidates >= 1,
          "beam, degree and candidates are at least 1, alpha at least 1.0");
  return {beam, new_degree, max_candidates, alpha, keep_old, fill, threads};
}

std::shared_ptr<GraphIndex> make(std::vector<std::shared_ptr<Table>> lists, std::vector<std::shared_ptr<Table>> slots,
                                 std::vector<Row> entries, std::shared_ptr<Scorer> travel, std::shared_ptr<Scorer> store,
                                 std::shared_ptr<Rows> rows, size_t n_nodes, std::shared_ptr<Table> wide) {
  require(!lists.empty() && slots.size() + 1 == lists.size(), "one slot table for each layer but the ground");
  require(travel->query_bytes() == store->query_bytes(), "travel and store are for other queries");
  for (const Row e : entries) require(e < n_nodes, "an entry does not exist");
  std::vector<graph::Layer> layers;
  for (size_t l = 0; l < lists.size(); ++l) {
    const size_t stride = lists[l] ? lists[l]->stride() : 0;
    require(stride % 4 == 0 && stride >= 4 && stride / 4 <= graph::kMaxBlock, "degree in [1, 512]");
    require(l == 0 || (slots[l - 1] && slots[l - 1]->stride() == 4), "slots are 4 bytes");
    layers.emplace_back(lists[l], l == 0 ? nullptr : slots[l - 1]);
  }
  require(!wide || (wide->stride() % 4 == 0 && wide->stride() >= 4 && wide->stride() / 4 <= graph::kMaxBlock),
          "degree in [1, 512]");
  auto made = std::make_shared<GraphIndex>(std::move(layers), std::move(entries), travel, store, rows, n_nodes, wide);
  require(n_nodes < graph::kMaxNodes && n_nodes <= made->room(), "fewer rows than nodes");
  return made;
}

// Distances compared, lists read, vectors ranked; queries that hopped over what does not pass a filter, that gave up.
using Counters = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, uint64_t>;

std::optional<Counters> walk(const GraphIndex& index, const graph::Request& request, const Poll& poll) {
  nb::gil_scoped_release release;
  const auto work = unless_retired([&] { return index.search(request, poll); });
  if (!work) return std::nullopt;
  return Counters{work->distances, work->hops, work->ranked, work->hopped, work->gave_up};
}

using Bounds = std::optional<In<float, 1>>;
using Widths = std::optional<In<uint32_t, 1>>;

void require_levels(const Bounds& bounds, const Widths& widths, const Bounds& reaches, size_t probe, size_t anchor) {
  require(widths->shape(0) >= 1 && bounds && bounds->shape(0) + 1 == widths->shape(0) && probe >= 1 &&
              (!reaches || (reaches->shape(0) == widths->shape(0) && anchor >= 1)),
          "one width, and one reach if any, more than bounds, and a probe");
}

// How walks look for what passes a filter, whatever the filter is: see graph::Effort and graph::Sieve.
struct Sifting {
  std::vector<uint32_t> ranks;
  std::vector<float> reaches, lists, edges, hops, works;  // levels x ranks, twice; edges; levels x edges, twice
  float few;
};

std::shared_ptr<Sifting> make_sifting(In<uint32_t, 1> ranks, In<float, 2> reaches, In<float, 2> lists, In<float, 1> edges,
                                      In<float, 2> hops, In<float, 2> works, float few) {
  const size_t n = ranks.shape(0);
  const uint32_t* first = ranks.data();
  const size_t n_levels = reaches.shape(0), n_edges = edges.shape(0);
  const auto fits = [](const In<float, 2>& a, size_t rows, size_t columns) { return a.shape(0) == rows && a.shape(1) == columns; };
  require(n >= 1 && first[0] >= 1 && std::is_sorted(first, first + n, std::less_equal<>()) && n_levels >= 1 && n_edges >= 1 &&
              fits(reaches, n_levels, n) && fits(lists, n_levels, n) && fits(hops, n_levels, n_edges) &&
              fits(works, n_levels, n_edges),
          "Sifting: reaches and lists for each level and rank, ranks ascending, and for each level and edge");
  return std::make_shared<Sifting>(Sifting{{first, first + n},
                                           {reaches.data(), reaches.data() + reaches.size()},
                                           {lists.data(), lists.data() + lists.size()},
                                           {edges.data(), edges.data() + edges.size()},
                                           {hops.data(), hops.data() + hops.size()},
                                           {works.data(), works.data() + works.size()},
                                           few});
}

void sift(graph::Request& r, const Sifting& sifting, const In<uint64_t, 1>& nodes, const In<uint32_t, 1>& seeds, float share,
          size_t most_work) {
  r.effort.reaches = sifting.reaches.data();
  r.effort.ranks = sifting.ranks.data();
  r.effort.n_ranks = sifting.ranks.size();
  graph::Sieve& sieve = r.sieve;
  sieve.bits = nodes.data();
  sieve.n_bits = nodes.shape(0) * 64;
  sieve.seeds = seeds.data();
  sieve.n_seeds = seeds.shape(0);
  sieve.share = share;
  sieve.lists = sifting.lists.data();
  sieve.few = sifting.few;
  sieve.edges = sifting.edges.data();
  sieve.reaches = sifting.hops.data();
  sieve.works = sifting.works.data();
  sieve.n_edges = sifting.edges.size();
  sieve.most_work = most_work;
}

// None when the graph was retired: its successor is to be searched then.
std::optional<Counters> search(const GraphIndex& index, size_t query_bytes, In<uint8_t, 2> queries, int metric, size_t width,
                 size_t depth, Out<int64_t, 2> ids, Out<float, 2> distances, Out<uint32_t, 1> counts,
                 Words filter, size_t probe, Bounds bounds, Widths widths, std::optional<Out<float, 1>> hardness,
                 size_t threads, Widths without, Bounds reaches, size_t anchor, float stretch,
                 const Sifting* sifting, Words nodes, Widths seeds, float share, size_t most_work, Words among,
                 Widths starts) {
  graph::Request r{};
  r.queries = queries.data();
  r.query_bytes = queries.shape(1);
  r.n = queries.shape(0);
  r.k = ids.shape(1);
  require_outside_metric();
  require(queries.shape(1) == query_bytes && query_bytes == index.query_bytes() && ids.shape(0) == r.n &&
              distances.shape(0) == r.n && distances.shape(1) == r.k && counts.shape(0) == r.n,
          "search: shapes disagree");
  require(width >= 1 && width <= graph::kMaxNodes, "search: width in [1, 2^31]");
  if (filter) r.filter = {filter->data(), filter->shape(0) * 64};
  r.effort.width = width;
  if (widths) {
    require_levels(bounds, widths, reaches, probe, anchor);
    r.effort.probe = probe;
    r.effort.bounds = bounds->data();
    r.effort.widths = widths->data();
    r.effort.n_levels = widths->shape(0);
    if (reaches) {
      require(stretch >= 1 && stretch <= graph::kMaxNodes, "search: stretch in [1, 2^31]");
      r.effort.reaches = reaches->data();
      r.effort.anchor = anchor;
      r.effort.stretch = stretch;
    }
  }
  if (sifting) {
    require(filter && nodes && seeds && reaches && sifting->hops.size() == r.effort.n_levels * sifting->edges.size(),
            "search: sifting wants a filter, its nodes, seeds, and as many levels");
    for (size_t i = 0; i < seeds->shape(0); ++i) require(seeds->data()[i] < index.n_nodes(), "search: a seed does not exist");
    sift(r, *sifting, *nodes, *seeds, share, most_work);
  }
  if (hardness) {
    require(hardness->shape(0) == r.n && widths, "search: hardness is seen with widths only");
    r.hardness = hardness->data();
  }
  if (without) {
    require(without->shape(0) == r.n, "search: one node to do without for each query");
    r.without = without->data();
  }
  if (among) {
    require(starts.has_value(), "search: a walk among some nodes has starts of its own");
    for (size_t i = 0; i < starts->shape(0); ++i)
      require(starts->data()[i] < index.room(), "search: a start does not exist");
    r.among = among->data();
    r.n_among = among->shape(0) * 64;
    r.starts = starts->data();
    r.n_starts = starts->shape(0);
  }
  r.depth = std::max(depth, r.k);
  r.threads = threads;
  r.metric = metric_from(metric);
  r.ids = ids.data();
  r.distances = distances.data();
  r.counts = counts.data();
  return walk(index, r, poll());
}

// What a search for k neighbors needs to know beside the query: made once, so that a call passes four arguments.
struct Plan {
  size_t dim, k, width, depth, probe = 0, anchor = 1;
  Metric metric;
  std::vector<float> bounds, reaches;
  std::vector<uint32_t> widths;
};

std::shared_ptr<Plan> make_plan(size_t dim, size_t k, int metric, size_t width, size_t depth, size_t probe, Bounds bounds,
                                Widths widths, Bounds reaches, size_t anchor) {
  require(k >= 1 && k <= graph::kMaxNodes && width >= 1 && width <= graph::kMaxNodes, "Plan: k and width in [1, 2^31]");
  auto plan = std::make_shared<Plan>();
  plan->dim = dim;
  plan->k = k;
  plan->width = width;
  plan->depth = depth;
  plan->metric = metric_from(metric);
  if (widths) {
    require_levels(bounds, widths, reaches, probe, anchor);
    plan->probe = probe;
    plan->anchor = anchor;
    if (reaches) plan->reaches.assign(reaches->data(), reaches->data() + reaches->shape(0));
    plan->bounds.assign(bounds->data(), bounds->data() + bounds->shape(0));
    plan->widths.assign(widths->data(), widths->data() + widths->shape(0));
  }
  return plan;
}

// One query, of plan.dim floats.
graph::Request one(const Plan& plan, const uint8_t* query, Answer& answer, uint32_t& count) {
  graph::Request r{};
  r.queries = query;
  r.query_bytes = plan.dim * 4;
  r.n = 1;
  r.k = plan.k;
  r.depth = std::max(plan.depth, r.k);
  r.effort.width = plan.width;
  r.effort.probe = plan.probe;
  r.effort.bounds = plan.bounds.data();
  r.effort.widths = plan.widths.data();
  r.effort.n_levels = plan.widths.size();
  r.effort.reaches = plan.reaches.empty() ? nullptr : plan.reaches.data();
  r.effort.anchor = plan.anchor;
  r.threads = 1;
  r.metric = plan.metric;
  r.ids = answer.ids();
  r.distances = answer.distances();
  r.counts = &count;
  return r;
}

// One float32 query: the least that a call can cost. None when it is no such query, or not all of `n_live` rows or k of them
// were found, or the graph was retired: the long way says what is wrong, or does better.
nb::object search_one(const GraphIndex& index, const Plan& plan, nb::handle asked, size_t n_live) {
  require_outside_metric();
  const FloatRow query(asked, plan.dim);
  if (!query || plan.dim * 4 != index.query_bytes()) return nb::none();
  Answer answer(plan.k);
  uint32_t count = 0;
  const graph::Request r = one(plan, query.bytes(), answer, count);
  std::optional<graph::Work> work;
  {
    nb::gil_scoped_release release;
    work = unless_retired([&] { return index.search(r, {}); });
  }
  if (!work || count < std::min(plan.k, n_live)) return nb::none();
  return answer.done(count, {work->distances, work->hops, work->ranked});
}

// The same under a filter, of which `n_wanted` rows pass or k: None also where the walk gave up.
nb::object sift_one(const GraphIndex& index, const Plan& plan, const Sifting& sifting, In<uint64_t, 1> filter,
                    In<uint64_t, 1> nodes, In<uint32_t, 1> seeds, float share, size_t most_work, size_t n_wanted,
                    nb::handle asked) {
  require_outside_metric();
  const size_t n_levels = plan.widths.size();
  require(!plan.reaches.empty() && sifting.hops.size() == n_levels * sifting.edges.size() && share > 0,
          "sift_one: as many levels, and a share");
  for (size_t i = 0; i < seeds.shape(0); ++i) require(seeds.data()[i] < index.n_nodes(), "sift_one: a seed does not exist");
  const FloatRow query(asked, plan.dim);
  if (!query || plan.dim * 4 != index.query_bytes()) return nb::none();
  Answer answer(plan.k);
  uint32_t count = 0;
  const size_t width = std::clamp(most_work, plan.k, graph::kMaxNodes);
  const std::vector<uint32_t> widths(n_levels, static_cast<uint32_t>(width));
  graph::Request r = one(plan, query.bytes(), answer, count);
  r.filter = {filter.data(), filter.shape(0) * 64};
  r.effort.width = width;
  r.effort.widths = widths.data();
  r.effort.stretch = std::max(1.0f, 1 / share);
  sift(r, sifting, nodes, seeds, share, most_work);
  std::optional<graph::Work> work;
  {
    nb::gil_scoped_release release;
    work = unless_retired([&] { return index.search(r, {}); });
  }
  if (!work || count < std::min(plan.k, n_wanted)) return nb::none();
  return answer.done(count, {work->distances, work->hops, work->ranked});
}

void require_may_change(const GraphIndex& index) {
  require_outside_metric();
  require(!index.borrowed(), "the lists are borrowed; copy them");
}

// Sets of labels by node, where sets end, their members, and kEntries nodes for each label.
void set_labels(GraphIndex& index, std::shared_ptr<Table> of_node, std::shared_ptr<Table> ends,
                std::shared_ptr<Table> members, std::shared_ptr<Table> entries) {
  using graph::Labels;
  require(of_node && ends && members && entries && of_node->stride() == 4 && ends->stride() == 4 &&
              members->stride() == sizeof(Labels::Label) && entries->stride() == 4 * Labels::kEntries &&
              entries->rows() <= Labels::kMost,
          "set_labels: of_node, ends (4 bytes), members (2 bytes) and entries (32 bytes)");
  require(ends->rows() >= 1 && *ends->as<uint32_t>() == 0 && *ends->as<uint32_t>(ends->rows() - 1) == members->rows(),
          "set_labels: set 0 is empty, and members end where the last set does");
  for (size_t s = 1; s < ends->rows(); ++s) {
    const uint32_t first = *ends->as<uint32_t>(s - 1), last = *ends->as<uint32_t>(s);
    require(first <= last, "set_labels: ends ascend");
    for (uint32_t i = first; i < last; ++i)
      require(*members->as<Labels::Label>(i) < entries->rows() &&
                  (i == first || *members->as<Labels::Label>(i - 1) < *members->as<Labels::Label>(i)),
              "set_labels: members of a set ascend, and are labels");
  }
  for (size_t v = 0; v < of_node->rows(); ++v)
    require(*of_node->as<uint32_t>(v) < ends->rows(), "set_labels: a set does not exist");
  for (size_t l = 0; l < entries->rows(); ++l)
    for (size_t i = 0; i < Labels::kEntries; ++i)
      require(entries->as<Row>(l)[i] == kNone || entries->as<Row>(l)[i] < of_node->rows(), "set_labels: an entry does not exist");
  index.set_labels(std::make_shared<Labels>(of_node, ends, members, entries));
}

void require_labels(const GraphIndex& index, size_t n_nodes) {
  require(!index.labels() || (!index.labels()->borrowed() && index.labels()->n_nodes() >= n_nodes),
          "labels of some nodes are missing, or borrowed");
}

void insert(GraphIndex& index, In<uint32_t, 1> nodes, size_t n_rows, size_t beam, size_t new_degree, float alpha,
            size_t max_candidates, bool keep_old, bool fill, size_t threads, nb::object progress) {
  require_may_change(index);
  require(n_rows <= index.room() && n_rows < graph::kMaxNodes, "insert: a table is too short");
  for (size_t i = 0; i < nodes.shape(0); ++i) require(nodes.data()[i] < n_rows, "insert: a node does not exist");
  require_labels(index, n_rows);
  const auto r = rules(beam, new_degree, alpha, max_candidates, keep_old, fill, threads);
  std::function<void(size_t)> report;
  if (!progress.is_none())
    report = [&progress](size_t done) {
      nb::gil_scoped_acquire gil;
      progress(done);
    };
  nb::gil_scoped_release release;
  index.insert(nodes.data(), nodes.shape(0), r, report, poll());
}

// Lists name nodes that exist and that their layer holds, are filled from the front, and do not name their owner.
// `slots`: where the layer keeps the list of each node; none for the ground, where list i is node i's.
void check_lists(const Table& lists, size_t n_lists, size_t n_nodes, bool owners, const Table* slots) {
  require(lists.stride() % 4 == 0 && n_lists <= lists.rows() && (!slots || (slots->stride() == 4 && n_nodes <= slots->rows())),
          "check_lists: shapes disagree");
  for (size_t v = 0; slots && v < n_nodes; ++v)
    require(*slots->as<Row>(v) == kNone || *slots->as<Row>(v) < n_lists, "a node's list does not exist");
  const size_t degree = lists.stride() / 4;
  for (size_t i = 0; i < n_lists; ++i) {
    const Row* list = lists.as<Row>(i);
    bool ended = false;
    for (size_t j = 0; j < degree; ++j) {
      if (list[j] == kNone) {
        ended = true;
        continue;
      }
      require(!ended && list[j] < n_nodes && !(owners && list[j] == i) && (!slots || *slots->as<Row>(list[j]) != kNone),
              "a neighbor list is damaged");
    }
  }
}

}  // namespace

void graph(nb::module_& m) {
  nb::class_<Plan>(m, "Plan", "The effort of a search, ready for use.")
      .def(nb::new_(&make_plan), "dim"_a, "k"_a, "metric"_a, "width"_a, "depth"_a, "probe"_a = 0,
           "bounds"_a.noconvert() = nb::none(), "widths"_a.noconvert() = nb::none(),
           "reaches"_a.noconvert() = nb::none(), "anchor"_a = 1);
  nb::class_<Sifting>(m, "Sifting", "How far walks go for what passes a filter.")
      .def(nb::new_(&make_sifting), "ranks"_a.noconvert(), "reaches"_a.noconvert(), "lists"_a.noconvert(),
           "edges"_a.noconvert(), "hops"_a.noconvert(), "works"_a.noconvert(), "few"_a);
  nb::class_<GraphIndex>(m, "Graph", "Layers of neighbor lists, searched through scorers.")
      .def(nb::new_(&make), "lists"_a, "slots"_a, "entries"_a, "travel"_a, "store"_a, "rows"_a, "n_nodes"_a,
           "wide"_a.none() = nb::none())
      .def("search", &search, "query_bytes"_a, "queries"_a.noconvert(), "metric"_a, "width"_a, "depth"_a,
           "ids"_a.noconvert(), "distances"_a.noconvert(), "counts"_a.noconvert(),
           "filter"_a.noconvert() = nb::none(), "probe"_a = 0, "bounds"_a.noconvert() = nb::none(),
           "widths"_a.noconvert() = nb::none(), "hardness"_a.noconvert() = nb::none(), "threads"_a = 0,
           "without"_a.noconvert() = nb::none(), "reaches"_a.noconvert() = nb::none(), "anchor"_a = 1,
           "stretch"_a = 1, "sifting"_a = nb::none(), "nodes"_a.noconvert() = nb::none(),
           "seeds"_a.noconvert() = nb::none(), "share"_a = 1, "most_work"_a = size_t{1} << 31,
           "among"_a.noconvert() = nb::none(), "starts"_a.noconvert() = nb::none())
      .def("search_one", &search_one,
           nb::sig("def search_one(self, plan: Plan, query: object, n_live: int, /) -> bytearray | None"))
      .def("sift_one", &sift_one,
           nb::sig("def sift_one(self, plan: Plan, sifting: Sifting, filter: NDArray[numpy.uint64], nodes: "
                   "NDArray[numpy.uint64], seeds: NDArray[numpy.uint32], share: float, most_work: int, n_wanted: int, "
                   "query: object, /) -> bytearray | None"))
      .def("insert", &insert, "nodes"_a.noconvert(), "n_rows"_a, "beam"_a, "new_degree"_a, "alpha"_a,
           "max_candidates"_a = 500, "keep_old"_a = false, "fill"_a = false, "threads"_a = 0, "progress"_a = nb::none())
      .def("connect", [](GraphIndex& g, size_t beam, std::optional<In<uint32_t, 1>> also, bool listen) {
             require_may_change(g);
             require(beam >= 1 && beam <= 65536, "connect: beam in [1, 65536]");
             std::vector<Row> nodes;
             if (also) nodes.assign(also->data(), also->data() + also->shape(0));
             nb::gil_scoped_release release;
             g.connect(beam, nodes, listen ? poll() : Poll{});
           }, "beam"_a, "also"_a.noconvert() = nb::none(), "listen"_a = true)
      .def("widen", [](GraphIndex& g, In<uint32_t, 1> nodes, size_t threads) {
             require_may_change(g);
             for (size_t i = 0; i < nodes.shape(0); ++i)
               require(g.has_wide() && nodes.data()[i] < g.n_nodes(), "widen: a node has no wide list");
             nb::gil_scoped_release release;
             g.widen(nodes.data(), nodes.shape(0), threads, poll());
           }, "nodes"_a.noconvert(), "threads"_a = 0)
      .def("connect_labels", [](GraphIndex& g, size_t beam, std::optional<In<uint32_t, 1>> also, bool listen) {
             require_may_change(g);
             require(beam >= 1 && beam <= 65536, "connect_labels: beam in [1, 65536]");
             require_labels(g, g.n_nodes());
             std::vector<Row> nodes;
             if (also) nodes.assign(also->data(), also->data() + also->shape(0));
             nb::gil_scoped_release release;
             return g.connect_labels(beam, nodes, listen ? poll() : Poll{});
           }, "beam"_a, "also"_a.noconvert() = nb::none(), "listen"_a = true)
      .def("unevenness", [](const GraphIndex& g, In<uint64_t, 1> bits) {
             return g.unevenness(bits.data(), bits.shape(0) * 64);
           }, "bits"_a.noconvert(), "How much alike neighbors are in whether they pass: 0 as if drawn, 1 all.")
      .def("count_unreachable", [](const GraphIndex& g) {
             nb::gil_scoped_release release;
             return g.count_unreachable(poll());
           })
      .def("consolidate", [](GraphIndex& g, In<uint8_t, 1> dead, size_t beam, size_t new_degree, float alpha, size_t threads) {
             require_may_change(g);
             require(dead.shape(0) >= g.n_nodes(), "consolidate: one flag a node");
             require_labels(g, g.n_nodes());
             const std::vector<bool> flags(dead.data(), dead.data() + dead.shape(0));
             const auto r = rules(beam, new_degree, alpha, 500, false, false, threads);
             nb::gil_scoped_release release;
             g.consolidate(flags, r, poll());
           }, "dead"_a.noconvert(), "beam"_a, "new_degree"_a, "alpha"_a, "threads"_a = 0)
      .def("set_labels", &set_labels, "of_node"_a, "ends"_a, "members"_a, "entries"_a)
      .def("retire", &GraphIndex::retire)
      .def("wait_for_readers", [](const GraphIndex& g) {
             require_outside_metric();
             nb::gil_scoped_release release;
             g.wait_for_readers(poll());
           })
      .def_prop_rw("entries", &GraphIndex::entries, [](GraphIndex& g, std::vector<Row> entries) {
             for (const Row e : entries) require(e < g.n_nodes(), "an entry does not exist");
             g.set_entries(std::move(entries));
           })
      .def_prop_ro("n_nodes", &GraphIndex::n_nodes);
  m.def("check_lists", &check_lists, "lists"_a, "n_lists"_a, "n_nodes"_a, "owners"_a,
        "slots"_a.none() = nb::none());
}

}  // namespace nearly::bind
