// Inverted lists: searching, growing, checking.
#include "lists/inverted.hpp"

#include <algorithm>
#include <limits>

#include "bind.hpp"

namespace nearly::bind {
namespace {

using lists::Chunk;
using lists::Inverted;
using Words = std::optional<In<uint64_t, 1>>;
using Counts = std::optional<In<uint32_t, 1>>;

std::shared_ptr<Inverted> make(std::shared_ptr<Table> chunks, std::shared_ptr<Table> members, size_t n_lists,
                               std::shared_ptr<Scorer> centers, std::shared_ptr<Scorer> codes, std::shared_ptr<Scorer> store,
                               std::shared_ptr<Rows> rows, std::shared_ptr<ListScorer> blocks, bool copies) {
  require(chunks->stride() == sizeof(Chunk) && members->stride() == 4, "Inverted: chunks are 16 bytes, members 4");
  require(n_lists >= 1 && n_lists <= chunks->rows(), "Inverted: a chunk a list");
  require(centers || blocks, "Inverted: centers, or blocks that know them");
  require(!centers || (centers->query_bytes() == store->query_bytes() && n_lists <= centers->n_rows()),
          "Inverted: centers are for other queries or lists");
  require(codes->query_bytes() == store->query_bytes(), "Inverted: scorers are for different queries");
  require(!blocks || (blocks->query_bytes() == store->query_bytes() && blocks->n_lists() >= n_lists),
          "Inverted: blocks are for other queries or lists");
  return std::make_shared<Inverted>(chunks, members, n_lists, centers, blocks, codes, store, rows, copies);
}

lists::Request request(const Inverted& index, size_t query_bytes, In<uint8_t, 2> queries, int metric, size_t threads) {
  require(queries.shape(1) == query_bytes && query_bytes == index.store().query_bytes(), "Inverted: other queries");
  lists::Request r{};
  r.queries = queries.data();
  r.query_bytes = queries.shape(1);
  r.n = queries.shape(0);
  r.threads = threads;
  r.metric = metric_from(metric);
  return r;
}

using Counters = std::tuple<uint64_t, uint64_t, uint64_t>;

// Distances compared, lists read, vectors ranked; None when the lists were retired: their successors are to be searched.
std::optional<Counters> search(const Inverted& index, size_t query_bytes, In<uint8_t, 2> queries, int metric, size_t width,
                               float reach, size_t depth, bool all_held, Out<int64_t, 2> ids, Out<float, 2> distances,
                               Out<uint32_t, 1> counts, Words filter, size_t threads, Counts holds, float beyond,
                               float spread, size_t most, std::optional<In<uint32_t, 2>> near,
                               std::optional<In<float, 2>> near_distances) {
  lists::Request r = request(index, query_bytes, queries, metric, threads);
  r.k = ids.shape(1);
  require(ids.shape(0) == r.n && distances.shape(0) == r.n && distances.shape(1) == r.k && counts.shape(0) == r.n &&
              r.k >= 1 && width >= 1 && reach >= 0 && depth < (size_t{1} << 31), "Inverted.search: shapes disagree");
  if (filter) r.filter = {filter->data(), filter->shape(0) * 64};
  r.ids = ids.data();
  r.distances = distances.data();
  r.counts = counts.data();
  require(!holds || holds->shape(0) == index.n_lists(), "Inverted.search: a count for each list");
  lists::Effort effort{width, reach, std::max(depth, r.k), all_held, holds ? holds->data() : nullptr, beyond, spread, most};
  require(near.has_value() == near_distances.has_value(), "Inverted.search: lists that are near come with distances");
  if (near) {
    require(near->shape(0) == r.n && near_distances->shape(0) == r.n && near->shape(1) == near_distances->shape(1),
            "Inverted.search: near lists disagree");
    require(std::all_of(near->data(), near->data() + near->size(),
                        [&](uint32_t list) { return list < index.n_lists() || list == kNone; }),
            "Inverted.search: a near list does not exist");
    effort.near = near->data();
    effort.near_distances = near_distances->data();
    effort.n_near = near->shape(1);
  }
  nb::gil_scoped_release release;
  const auto work = unless_retired([&] { return index.search(r, effort, poll()); });
  if (!work) return std::nullopt;
  return Counters{work->distances, work->lists, work->ranked};
}

void gaps(const Inverted& index, size_t query_bytes, In<uint8_t, 2> queries, int metric, Out<float, 2> out,
          Out<float, 1> nearest, size_t threads) {
  const lists::Request r = request(index, query_bytes, queries, metric, threads);
  require(out.shape(0) == r.n && nearest.shape(0) == r.n && out.shape(1) == index.n_lists(), "Inverted.gaps: shapes disagree");
  nb::gil_scoped_release release;
  index.gaps(r, out.data(), nearest.data(), poll());
}

void estimates(const Inverted& index, size_t query_bytes, In<uint8_t, 2> queries, int metric, In<uint32_t, 2> slots,
               In<uint32_t, 2> lists, Out<float, 2> out, size_t threads) {
  const lists::Request r = request(index, query_bytes, queries, metric, threads);
  require(slots.shape(0) == r.n && lists.shape(0) == r.n && out.shape(0) == r.n && lists.shape(1) == slots.shape(1) &&
              out.shape(1) == slots.shape(1), "Inverted.estimates: shapes disagree");
  for (size_t i = 0; i < slots.size(); ++i)
    require(slots.data()[i] < index.n_slots() && lists.data()[i] < index.n_lists(), "Inverted.estimates: no such slot");
  nb::gil_scoped_release release;
  index.estimates(r, slots.data(), lists.data(), slots.shape(1), out.data(), poll());
}

// False when the lists were retired.
bool passing(const Inverted& index, In<uint64_t, 1> filter, Out<uint32_t, 1> out) {
  require(out.shape(0) == index.n_lists(), "Inverted.passing: a count for each list");
  nb::gil_scoped_release release;
  return unless_retired([&] {
           index.passing({filter.data(), filter.shape(0) * 64}, out.data(), poll());
           return true;
         }).has_value();
}

const Chunk& chunk_of(const Inverted& index, size_t chunk) {
  require(chunk < index.chunks().rows(), "Inverted: a chunk does not exist");
  return *index.chunks().as<Chunk>(chunk);
}

// Whether a chunk's slots are in all tables that hold something of a slot.
bool has_place(const Inverted& index, const Chunk& chunk) {
  return fits(chunk.first, chunk.capacity, index.members().rows()) &&
         fits(chunk.first, chunk.capacity, index.n_slots()) && chunk.first % index.unit() == 0;
}

void extend(Inverted& index, In<uint32_t, 1> chunks, In<uint32_t, 1> counts) {
  require(chunks.shape(0) == counts.shape(0) && !index.chunks().borrowed(), "Inverted.extend: lengths differ, or borrowed");
  for (size_t i = 0; i < chunks.shape(0); ++i) {
    const Chunk& chunk = chunk_of(index, chunks.data()[i]);
    require(has_place(index, chunk) && counts.data()[i] <= chunk.capacity, "Inverted.extend: more than there is room for");
    for (size_t j = 0; j < counts.data()[i]; ++j)
      require(*index.members().as<Row>(chunk.first + j) < index.store().n_rows(), "Inverted.extend: a node does not exist");
  }
  for (size_t i = 0; i < chunks.shape(0); ++i) index.extend(chunks.data()[i], counts.data()[i]);
}

void chain(Inverted& index, In<uint32_t, 1> chunks, In<uint32_t, 1> next) {
  require(chunks.shape(0) == next.shape(0) && !index.chunks().borrowed(), "Inverted.chain: lengths differ, or borrowed");
  for (size_t i = 0; i < chunks.shape(0); ++i) {
    const uint32_t after = next.data()[i];
    const uint32_t before = chunk_of(index, chunks.data()[i]).next;  // the same again changes nothing
    require((before == kNone || before == after) && chunk_of(index, after).next == kNone && after >= index.n_lists() &&
                after != chunks.data()[i], "Inverted.chain: a chunk follows one other only");
  }
  for (size_t i = 0; i < chunks.shape(0); ++i) index.chain(chunks.data()[i], next.data()[i]);
}

// Every chunk of the first n_chunks is in one list, has its slots to itself, and holds nodes below n_nodes that no other slot
// holds, or one in another list where nodes may be in two. Returns how many slots hold nodes.
size_t check(const Inverted& index, size_t n_chunks, size_t n_nodes) {
  const size_t n_slots = index.members().rows();
  require(n_chunks <= index.chunks().rows() && n_chunks >= index.n_lists(), "Inverted.check: chunks that do not exist");
  std::vector<bool> reached(n_chunks, false), used(n_slots, false);
  std::vector<uint8_t> held(n_nodes, 0);
  std::vector<uint32_t> last(index.n_copies() > 1 ? n_nodes : 0, kNone);  // list that held it
  size_t n_held = 0;
  for (size_t list = 0; list < index.n_lists(); ++list) {
    for (size_t c = list; c != kNone; c = index.chunks().as<Chunk>(c)->next) {
      require(c < n_chunks && !reached[c] && (c == list || c >= index.n_lists()), "a list's chunks are damaged");
      reached[c] = true;
      const Chunk& chunk = *index.chunks().as<Chunk>(c);
      require(has_place(index, chunk) && chunk.count <= chunk.capacity, "a chunk has no place");
      for (size_t s = chunk.first; s < size_t{chunk.first} + chunk.capacity; ++s) {
        require(!used[s], "two chunks share a slot");
        used[s] = true;
      }
      for (size_t s = chunk.first; s < size_t{chunk.first} + chunk.count; ++s) {
        const Row node = *index.members().as<Row>(s);
        require(node < n_nodes && node < index.store().n_rows() && held[node] < index.n_copies(),
                "a list holds a node that does not exist, or holds it twice");
        ++held[node];
        if (!last.empty()) {
          require(last[node] != list, "a list holds a node twice");
          last[node] = static_cast<uint32_t>(list);
        }
        ++n_held;
      }
    }
  }
  require(std::find(reached.begin(), reached.end(), false) == reached.end(), "a chunk is in no list");
  return n_held;
}

}  // namespace

void inverted(nb::module_& m) {
  nb::class_<Inverted>(m, "Inverted", "Lists of nodes by their nearest center, searched through scorers.")
      .def(nb::new_(&make), "chunks"_a, "members"_a, "n_lists"_a, "centers"_a.none(), "codes"_a, "store"_a, "rows"_a,
           "blocks"_a.none() = nb::none(), "copies"_a = false)
      .def("search", &search, "query_bytes"_a, "queries"_a.noconvert(), "metric"_a, "width"_a, "reach"_a, "depth"_a,
           "all_held"_a, "ids"_a.noconvert(), "distances"_a.noconvert(), "counts"_a.noconvert(), "filter"_a.noconvert() = nb::none(),
           "threads"_a = 0, "holds"_a.noconvert() = nb::none(), "beyond"_a = -std::numeric_limits<float>::infinity(),
           "spread"_a = std::numeric_limits<float>::infinity(), "most"_a = ~size_t{0} >> 1,
           "near"_a.noconvert() = nb::none(), "near_distances"_a.noconvert() = nb::none())
      .def("gaps", &gaps, "query_bytes"_a, "queries"_a.noconvert(), "metric"_a, "out"_a.noconvert(), "nearest"_a.noconvert(),
           "threads"_a = 0)
      .def("estimates", &estimates, "query_bytes"_a, "queries"_a.noconvert(), "metric"_a, "slots"_a.noconvert(),
           "lists"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0)
      .def("passing", &passing, "filter"_a.noconvert(), "out"_a.noconvert())
      .def("extend", &extend, "chunks"_a.noconvert(), "counts"_a.noconvert())
      .def("chain", &chain, "chunks"_a.noconvert(), "next"_a.noconvert())
      .def("check", &check, "n_chunks"_a, "n_nodes"_a)
      .def_prop_ro("n_lists", &Inverted::n_lists)
      .def("retire", &Inverted::retire)
      .def("wait_for_readers", [](const Inverted& index) {
             nb::gil_scoped_release release;
             index.wait_for_readers(poll());
           });
}

}  // namespace nearly::bind
