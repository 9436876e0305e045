// Readers search a graph and scan while one writer adds, removes, exchanges, repairs, uses places again and puts
// others in the place of the graph and its rows, as an index does that outgrows a table. Meant for sanitizers, without Python:
//
//     cmake -S . -B build/tsan-native -G Ninja -DNEARLY_PYTHON=OFF -DNEARLY_SANITIZE=thread
//     cmake --build build/tsan-native && build/tsan-native/stress --seconds 60 --seed 1
//
// A vector is a function of its id, so every reader can check every answer: the distance is that of the id it stands
// beside, ids are there once and in order, and no id is found that was removed before the search began. A few ids turn
// between two vectors each: every scan finds each of them once, at the old vector or at the new one.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/rows.hpp"
#include "graph/index.hpp"
#include "lists/blocks.hpp"
#include "lists/scan.hpp"
#include "quant/codes.hpp"
#include "quant/plain.hpp"

namespace {

using namespace nearly;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr size_t kDim = 24, kDegree = 12, kCapacity = 1 << 13, kMostIds = 1 << 20, kMostAlive = 2500;
constexpr int64_t kPinned = 256;  // the first ids are never removed
constexpr size_t kUpper = 16;     // with two layers every 16th node is in the upper one

// Counts the writer's removals. Relaxed under ThreadSanitizer: a stronger order would hide missing ones in the core.
#ifdef __SANITIZE_THREAD__
constexpr auto kOrder = std::memory_order_relaxed;
#else
constexpr auto kOrder = std::memory_order_seq_cst;
#endif

[[noreturn]] void fail(const char* what, int64_t id = -1, double got = 0, double expected = 0) {
  std::fprintf(stderr, "stress: %s (id %lld, got %g, expected %g)\n", what, static_cast<long long>(id), got, expected);
  std::abort();
}

uint64_t mixed(uint64_t x) {  // splitmix64: Steele, Lea and Flood, OOPSLA 2014
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// Ids 2j and 2j + 1 have one vector, in [-1, 1]: they share a node.
void vector_of(int64_t id, float* out) {
  for (size_t j = 0; j < kDim; ++j) {
    const uint64_t bits = mixed(static_cast<uint64_t>(id / 2) * kDim + j);
    out[j] = static_cast<float>(bits >> 40) / static_cast<float>(1 << 23) - 1.0f;
  }
}

constexpr int64_t kTurning = 8, kFirstTurning = kMostIds - kTurning;
constexpr float kCorner = 1.2f;  // near which they are, far from all others

void turning_vector(int64_t id, int version, float* out) {
  vector_of(2 * (2 * id + version), out);
  for (size_t j = 0; j < kDim; ++j) out[j] = kCorner + 0.1f * out[j];
}

std::shared_ptr<Table> table(size_t stride) { return std::make_shared<Table>(stride, 0, kCapacity); }

void grow(Table& t, size_t rows, int fill) {
  const size_t old = t.rows();
  if (!t.grow(rows)) fail("a table is full");
  if (rows > old) std::memset(t.row(old), fill, (rows - old) * t.stride());
}

enum class Way { kGraph, kScan, kBlocks, kRadius };

// The exact scorer; now and then it dozes off over what it has just read, long enough for a writer to come around.
class Dozing final : public Scorer {
 public:
  explicit Dozing(std::shared_ptr<quant::Plain> plain) : plain_(std::move(plain)) {}
  size_t n_rows() const override { return plain_->n_rows(); }
  size_t n_bytes() const override { return plain_->n_bytes(); }
  size_t query_bytes() const override { return plain_->query_bytes(); }
  size_t prepared_bytes() const override { return plain_->prepared_bytes(); }
  void prepare(const void* query, void* prepared) const override { plain_->prepare(query, prepared); }
  void prepare_row(Row row, void* prepared) const override { plain_->prepare_row(row, prepared); }
  void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const override {
    plain_->score(prepared, rows, n, bound, out);
    doze();
  }
  void score_range(const void* prepared, Row first, size_t n, float* out) const override {
    plain_->score_range(prepared, first, n, out);
    doze();
  }
  void doze() const {
    thread_local uint32_t calls = 0;
    if (++calls % 256 == 0) std::this_thread::sleep_for(2ms);
  }

 private:
  std::shared_ptr<quant::Plain> plain_;
};

struct Case {
  bool graph, codes, layered;
  const char* name;
};

class World {
 public:
  World(const Case& c, uint64_t seed) : case_(c), random_(seed), gone_(kMostIds) {
    const auto store = std::make_shared<quant::Plain>(vectors_, kernels::kFloat32, Metric::kL2, kDim);
    store_ = store;
    dozing_ = std::make_shared<Dozing>(store);
    std::shared_ptr<Scorer> travel = store;
    if (c.codes) {
      quant::CodeSpec spec;
      spec.dim = spec.dims = kDim;
      spec.center.assign(kDim, 0.0f);
      spec.step.assign(kDim, 2.0f / 255);
      code_rows_ = table(quant::Codes::row_bytes(spec));
      codes_ = std::make_shared<quant::Codes>(spec, code_rows_);
      travel = codes_;
    }
    travel_ = travel;
    publish({}, 0);
    rules_.beam = 40;
    rules_.new_degree = kDegree;
    rules_.threads = 2;
    for (int64_t id = 0; id < kPinned; id += 64) add(64);
    turn(~uint64_t{0});
  }

  void write_until(Clock::time_point end) {
    while (Clock::now() < end && next_id_ + 64 < static_cast<int64_t>(kMostIds)) {
      if (random_() % 8 == 0) replace();
      const size_t alive = row_of_.size();
      const uint64_t dice = random_() % 16;
      if (alive < kMostAlive && (dice < 9 || alive < kMostAlive / 4))
        add(1 + random_() % 48);
      else if (dice < 12)
        remove(1 + random_() % 64);
      else if (dice < 15)
        turn(random_());
      else
        consolidate();
    }
  }

  void read_until(Clock::time_point end, uint64_t seed) {
    std::mt19937_64 random(seed);
    const std::vector<uint64_t> pinned_rows(kPinned / 64, ~uint64_t{0});  // the first ids have the first rows, for good
    while (Clock::now() < end) {
      constexpr size_t kMost = 8, kK = 10;
      const size_t n = 1 + random() % kMost;
      float queries[kMost * kDim], distances[kMost * kK];
      int64_t ids[kMost * kK], asked[kMost];
      uint32_t counts[kMost];
      for (size_t q = 0; q < n; ++q) {
        asked[q] = static_cast<int64_t>(random() % kPinned);
        vector_of(asked[q], queries + q * kDim);
      }
      const bool turning = random() % 4 == 0, filtered = !turning && random() % 4 == 0;
      if (turning) std::fill(queries, queries + n * kDim, kCorner);
      lists::Request r{};
      r.queries = reinterpret_cast<const uint8_t*>(queries);
      r.query_bytes = kDim * 4;
      r.n = n;
      r.k = turning ? kTurning : kK;
      if (filtered) r.filter = {pinned_rows.data(), kPinned};
      r.threads = 1 + random() % 2;
      r.metric = Metric::kL2;
      r.ids = ids;
      r.distances = distances;
      r.counts = counts;
      const auto way = static_cast<Way>(case_.graph ? random() % 4 : 1 + random() % 3);
      const uint64_t before = clock_.load(kOrder);
      const lists::Ragged near = read(way, r, random() % 64 == 0 ? 20ms : 0ms);
      for (size_t q = 0; q < n; ++q) {
        const bool radius = way == Way::kRadius;
        const int64_t* found = radius ? near.ids[q].data() : ids + q * r.k;
        const size_t count = radius ? near.ids[q].size() : counts[q];
        check(queries + q * kDim, found, radius ? near.distances[q].data() : distances + q * r.k, count,
              radius ? count : r.k, before, filtered);
        if (turning) {
          const std::vector<int64_t> sorted = sorted_ids(found, count);
          if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) fail("both vectors of an id");
          if (way != Way::kGraph && (count != kTurning || sorted.front() != kFirstTurning))
            fail("neither vector of an id", sorted.empty() ? -1 : sorted.front(), static_cast<double>(count), kTurning);
          ++n_turned_;
          continue;
        }
        const bool hit = std::find(found, found + count, asked[q]) != found + count;
        if (way == Way::kGraph) {
          ++n_asked_;
          n_found_ += hit;
        } else {
          ++n_scanned_;
          if (!hit) fail("a scan left out what was always there", asked[q]);
        }
      }
    }
  }

  // When nobody writes any more, all that is alive must be reached, and nearly all of it found.
  void finish() {
    consolidate();
    if (case_.graph) index().connect(rules_.beam, {}, {});
    if (const size_t lost = case_.graph ? index().count_unreachable({}) : 0) fail("nodes cannot be reached", -1, static_cast<double>(lost));
    if (n_found_ < n_asked_ * 95 / 100) fail("recall", -1, static_cast<double>(n_found_), static_cast<double>(n_asked_));
    std::printf("%-18s %8llu walks and %8llu scans, %5llu begun anew, %7lld ids added, %6lld turned for %7llu looks, "
                "%5zu alive, recall %.4f\n", case_.name,
                static_cast<unsigned long long>(n_asked_), static_cast<unsigned long long>(n_scanned_),
                static_cast<unsigned long long>(n_late_), static_cast<long long>(next_id_),
                static_cast<long long>(n_turns_), static_cast<unsigned long long>(n_turned_), row_of_.size(),
                n_asked_ ? static_cast<double>(n_found_) / static_cast<double>(n_asked_) : 1.0);
  }

 private:
  // What readers look at: a new one takes the place of the old when a table is outgrown.
  struct View {
    std::shared_ptr<Rows> rows;
    std::unique_ptr<graph::GraphIndex> index;
  };

  // By a view that is not retired meanwhile; it may be when the reader hesitates to begin.
  lists::Ragged read(Way way, const lists::Request& r, std::chrono::milliseconds hesitates) {
    for (;;) {
      const size_t n_nodes = n_published_.load(std::memory_order_acquire);
      const auto view = std::atomic_load(&view_);
      std::this_thread::sleep_for(hesitates);
      try {
        if (way == Way::kGraph) return walk(*view->index, r), lists::Ragged{};
        if (way == Way::kScan && r.filter.bits && codes_) {
          std::vector<Row> pinned(kPinned / 2);
          std::iota(pinned.begin(), pinned.end(), Row{0});
          return lists::scan_coded(*dozing_, {codes_.get(), 0.5f}, *view->rows, n_nodes, &pinned, r, {}), lists::Ragged{};
        }
        if (way == Way::kScan) return lists::scan(*dozing_, *view->rows, n_nodes, nullptr, r, {}), lists::Ragged{};
        if (way == Way::kRadius) return lists::scan_radius(*dozing_, *view->rows, n_nodes, 3.0f, r, {});
        const lists::Dense dense{kDim,
                                 [&](const Row* nodes, size_t n, float* out) {
                                   for (size_t i = 0; i < n; ++i) store_->decode(nodes[i], out + i * kDim);
                                   dozing_->doze();
                                 },
                                 [&](const void* query, float* out) {
                                   store_->to_form(static_cast<const float*>(query), out);
                                 }};
        std::vector<Row> every(n_nodes);  // all of them by name, or without: the answer is the same
        std::iota(every.begin(), every.end(), Row{0});
        const std::vector<Row>* only = n_nodes % 2 ? &every : nullptr;
        return lists::scan_blocks(*dozing_, dense, *view->rows, n_nodes, only, r, {}), lists::Ragged{};
      } catch (const Retired&) {
        hesitates = 0ms;
        ++n_late_;
      }
    }
  }

  static void walk(const graph::GraphIndex& index, const lists::Request& from) {
    graph::Request r{};
    r.queries = from.queries;
    r.query_bytes = from.query_bytes;
    r.n = from.n;
    r.k = from.k;
    r.effort.width = 64;
    r.depth = 20;
    r.filter = from.filter;
    r.threads = from.threads;
    r.metric = from.metric;
    r.ids = from.ids;
    r.distances = from.distances;
    r.counts = from.counts;
    // Under a filter walks go by what passes, every other one hops over the rest: two ids hang on each node.
    static const std::vector<uint64_t> pinned_nodes(kPinned / 128 + 1, ~uint64_t{0});
    const uint32_t widths[] = {2000}, ranks[] = {10};
    const float reaches[] = {2.0f}, lists[] = {10.0f}, edges[] = {0.0f}, works[] = {0.0f};
    const Row seeds[] = {0, kPinned / 8, kPinned / 4};
    if (r.filter.bits) {
      r.effort = {2000, 8, nullptr, widths, 1, 20, reaches, 10};
      r.effort.ranks = ranks;
      r.effort.stretch = 4;
      r.sieve.bits = pinned_nodes.data();
      r.sieve.n_bits = kPinned / 2;
      r.sieve.seeds = seeds;
      r.sieve.n_seeds = 3;
      r.sieve.share = 0.25f;
      r.sieve.lists = lists;
      r.sieve.few = from.n % 2 ? 2.0f : 0.0f;
      r.sieve.edges = edges;
      r.sieve.reaches = reaches;
      r.sieve.works = works;
      r.sieve.n_edges = 1;
    }
    index.search(r, {});
  }

  graph::GraphIndex& index() { return *view_->index; }

  void publish(std::vector<Row> entries, size_t n_nodes) {
    auto view = std::make_shared<View>();
    view->rows = rows_ = std::make_shared<Rows>(ids_, next_, first_, last_, readers_);
    std::vector<graph::Layer> layers{{lists_, nullptr}};
    if (case_.layered) layers.emplace_back(upper_lists_, slots_);
    view->index = std::make_unique<graph::GraphIndex>(layers, std::move(entries), travel_, dozing_, rows_, n_nodes, wide_);
    std::atomic_store(&view_, view);
  }

  // Other tables for the lists and for the first rows: what still reads the old ones is not told of changes.
  void replace() {
    const auto old = view_;
    for (std::shared_ptr<Table>* t : {&lists_, &wide_, &first_}) {
      const auto copy = table((*t)->stride());
      grow(*copy, (*t)->rows(), 0);
      std::memcpy(copy->row(0), (*t)->row(0), (*t)->n_bytes());
      *t = copy;
    }
    publish(old->index->entries(), old->index->n_nodes());
    old->index->retire();
    old->rows->retire();
  }

  void check(const float* query, const int64_t* ids, const float* distances, size_t count, size_t k, uint64_t before,
             bool filtered) const {
    if (count > k) fail("more answers than asked for", -1, static_cast<double>(count), static_cast<double>(k));
    for (size_t i = count; i < k; ++i)
      if (ids[i] != -1 || !std::isinf(distances[i])) fail("an empty place holds something", ids[i], distances[i]);
    for (size_t i = 0; i < count; ++i) {
      const int64_t id = ids[i];
      if (id < 0 || id >= static_cast<int64_t>(kMostIds)) fail("an id that nobody gave", id);
      if (filtered && id >= kPinned) fail("an id that the filter keeps out", id);
      const uint64_t gone = gone_[id].load(kOrder);
      if (gone != 0 && gone <= before) fail("an id that was removed before the search", id);
      float v[kDim];
      id >= kFirstTurning ? turning_vector(id, 0, v) : vector_of(id, v);
      double expected = distance(v, query);
      if (id >= kFirstTurning && std::abs(expected - distances[i]) > 1e-4) {
        turning_vector(id, 1, v);
        expected = distance(v, query);
      }
      if (std::abs(expected - distances[i]) > 1e-4) fail("a wrong distance", id, distances[i], expected);
      if (i > 0 && (distances[i] < distances[i - 1] || (distances[i] == distances[i - 1] && id <= ids[i - 1])))
        fail("answers out of order", id, distances[i], distances[i - 1]);
    }
  }

  static double distance(const float* v, const float* query) {
    double sum = 0;
    for (size_t j = 0; j < kDim; ++j) sum += (static_cast<double>(v[j]) - query[j]) * (static_cast<double>(v[j]) - query[j]);
    return std::sqrt(sum);
  }

  static std::vector<int64_t> sorted_ids(const int64_t* ids, size_t n) {
    std::vector<int64_t> sorted(ids, ids + n);
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

  // Some ids get their other vector in place of the one that they have, all at one moment.
  void turn(uint64_t which) {
    std::vector<Link> come, go;
    std::vector<Row> fresh;
    for (int64_t i = 0; i < kTurning; ++i) {
      if (!(which >> i & 1)) continue;
      Turning& t = turning_[i];
      const Link now{take(spare_rows_, n_rows_), kFirstTurning + i, take(spare_nodes_, n_nodes_)};
      grow(*ids_, n_rows_, 0xff);
      grow(*next_, n_rows_, 0xff);
      float v[kDim];
      turning_vector(now.id, t.version ^= 1, v);
      fill(now.node, v);
      node_of_[-++n_turns_] = now.node;  // a key of its own: it is repaired and used again like any other
      come.push_back(now);
      fresh.push_back(now.node);
      if (t.link.row != kNone) {
        go.push_back(t.link);
        pending_.push_back(t.link.row);
      }
      t.link = now;
    }
    n_published_.store(n_nodes_, std::memory_order_release);
    if (case_.graph) index().insert(fresh.data(), fresh.size(), rules_, {}, {});
    rows_->prepare(std::move(come), std::move(go), {});
    if (random_() % 8 == 0) std::this_thread::sleep_for(1ms);
    rows_->exchange();
    rows_->settle();
  }

  // Rows are filled and hung on their nodes, then the graph is led to the new nodes.
  void add(size_t n) {
    std::vector<Row> fresh;
    for (size_t i = 0; i < n; ++i) {
      const int64_t id = next_id_++;
      const auto [known, is_new] = node_of_.try_emplace(id / 2, kNone);
      if (is_new) {
        known->second = take(spare_nodes_, n_nodes_);
        fresh.push_back(known->second);
        float v[kDim];
        vector_of(id, v);
        fill(known->second, v);
      }
      const Row row = take(spare_rows_, n_rows_);
      grow(*ids_, n_rows_, 0xff);
      grow(*next_, n_rows_, 0xff);
      rows_->link(row, id, known->second);
      row_of_[id] = row;
    }
    n_published_.store(n_nodes_, std::memory_order_release);
    if (!case_.graph) return;
    index().insert(fresh.data(), fresh.size(), rules_, {}, {});
    index().widen(fresh.data(), fresh.size(), 1, {});
    if (random_() % 4 == 0) index().connect(rules_.beam, {}, {});
  }

  void fill(Row node, const float* v) {
    for (Table* t : {first_.get(), last_.get(), lists_.get(), wide_.get()}) grow(*t, n_nodes_, 0xff);
    grow(*vectors_, n_nodes_, 0);
    store_->fill(node, v, 1);
    if (codes_) {
      grow(*code_rows_, n_nodes_, 0);
      codes_->fill(node, v, 1);
    }
    if (!case_.layered) return;
    grow(*slots_, n_nodes_, 0xff);
    if (node % kUpper) return;
    grow(*upper_lists_, n_nodes_ / kUpper + 1, 0xff);
    *slots_->as<Row>(node) = node / kUpper;
  }

  void remove(size_t n) {
    for (size_t i = 0; i < n && !row_of_.empty(); ++i) {
      const auto id = kPinned + static_cast<int64_t>(random_() % static_cast<uint64_t>(next_id_ - kPinned + 1));
      const auto at = row_of_.find(id);
      if (at == row_of_.end()) continue;
      rows_->unlink({{at->second, 0, node_of_.at(id / 2)}});
      gone_[id].store(clock_.fetch_add(1, kOrder) + 1, kOrder);
      pending_.push_back(at->second);
      row_of_.erase(at);
    }
  }

  void consolidate() {
    std::vector<bool> dead(n_nodes_);
    for (Row v = 0; v < n_nodes_; ++v) dead[v] = rows_->first(v) == kNone;
    if (case_.graph) {
      index().consolidate(dead, rules_, {});
      elect(dead);
      index().connect(rules_.beam, {}, {});
    }
    index().wait_for_readers({});
    // Now nobody can meet what was dead: its places are free.
    for (auto at = node_of_.begin(); at != node_of_.end();) {
      const Row node = at->second;
      if (!dead[node]) {
        ++at;
        continue;
      }
      std::memset(lists_->row(node), 0xff, lists_->stride());
      if (case_.layered && node % kUpper == 0)
        std::memset(upper_lists_->row(node / kUpper), 0xff, upper_lists_->stride());
      spare_nodes_.push_back(node);
      at = node_of_.erase(at);
    }
    spare_rows_.insert(spare_rows_.end(), pending_.begin(), pending_.end());
    pending_.clear();
  }

  void elect(const std::vector<bool>& dead) {
    std::vector<Row> entries;
    for (const size_t step : {kUpper, size_t{1}})  // upper nodes first: searches begin at the first entry
      for (Row v = 0; v < n_nodes_ && entries.size() < 8; v += static_cast<Row>(step))
        if (!dead[v] && std::find(entries.begin(), entries.end(), v) == entries.end()) entries.push_back(v);
    index().set_entries(entries);
  }

  static Row take(std::vector<Row>& spare, size_t& used) {
    if (spare.empty()) return static_cast<Row>(used++);
    const Row last = spare.back();
    spare.pop_back();
    return last;
  }

  const Case case_;
  std::mt19937_64 random_;
  std::shared_ptr<Table> vectors_ = table(quant::Plain::row_bytes(kernels::kFloat32, Metric::kL2, kDim));
  std::shared_ptr<Table> ids_ = table(8), next_ = table(4), first_ = table(4), last_ = table(4);
  std::shared_ptr<Table> wide_ = table(4 * kDegree * 5), lists_ = table(4 * kDegree * 2), upper_lists_ = table(4 * kDegree), slots_ = table(4);
  std::shared_ptr<Table> code_rows_;
  const std::shared_ptr<Readers> readers_ = std::make_shared<Readers>();
  std::shared_ptr<Rows> rows_;
  std::shared_ptr<quant::Plain> store_;
  std::shared_ptr<Dozing> dozing_;
  std::shared_ptr<quant::Codes> codes_;
  std::shared_ptr<Scorer> travel_;
  std::shared_ptr<View> view_;
  graph::BuildRules rules_;

  // The writer's own.
  int64_t next_id_ = 0;
  size_t n_nodes_ = 0, n_rows_ = 0;
  std::unordered_map<int64_t, Row> node_of_, row_of_;
  std::vector<Row> spare_nodes_, spare_rows_, pending_;
  struct Turning {
    Link link{kNone, 0, 0};
    int version = 0;
  };
  Turning turning_[kTurning];
  int64_t n_turns_ = 0;

  std::atomic<size_t> n_published_{0};  // nodes that hold or held rows: what a scan may look at
  std::atomic<uint64_t> clock_{0}, n_asked_{0}, n_found_{0}, n_scanned_{0}, n_late_{0}, n_turned_{0};
  std::vector<std::atomic<uint64_t>> gone_;  // by id: when it was removed, 0 while it is there
};

}  // namespace

int main(int argc, char** argv) {
  double seconds = 20;
  uint64_t seed = 0;
  size_t n_readers = 3;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--seconds")
      seconds = std::atof(argv[i + 1]);
    else if (name == "--seed")
      seed = std::strtoull(argv[i + 1], nullptr, 10);
    else if (name == "--readers")
      n_readers = std::strtoull(argv[i + 1], nullptr, 10);
    else
      return std::fprintf(stderr, "usage: stress [--seconds S] [--seed N] [--readers N]\n"), 2;
  }
  const Case cases[] = {{false, false, false, "scans alone"},      {true, false, false, "plain, one layer"},
                        {true, true, false, "codes, one layer"},   {true, false, true, "plain, two layers"},
                        {true, true, true, "codes, two layers"}};
  for (const Case& c : cases) {
    World world(c, seed);
    const auto end = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000 / std::size(cases)));
    std::vector<std::thread> readers;
    for (size_t t = 0; t < n_readers; ++t) readers.emplace_back([&, t] { world.read_until(end, seed * 1000 + t + 1); });
    world.write_until(end);
    for (std::thread& reader : readers) reader.join();
    world.finish();
  }
  std::printf("stress: seed %llu, nothing wrong\n", static_cast<unsigned long long>(seed));
}
