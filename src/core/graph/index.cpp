#include "graph/index.hpp"

#include <algorithm>
#include <limits>
#include <thread>

namespace nearly::graph {

void GraphIndex::answer(const Request& r, size_t q, const std::vector<Row>& entries, size_t n_nodes,
                        Scratch& scratch) const {
  const uint8_t* query = r.queries + q * r.query_bytes;
  const size_t travel_bytes = (travel_->prepared_bytes() + 63) / 64 * 64;
  auto* prepared = static_cast<uint8_t*>(scratch.prepared(travel_bytes + store_->prepared_bytes()));
  travel_->prepare(query, prepared);
  if (layers_.size() > 1 && !entries.empty()) {
    Row at = entries[0];
    for (size_t l = layers_.size() - 1; l > 0; --l)
      if (layers_[l].holds(at)) at = descend(layers_[l], *travel_, prepared, at, n_nodes, scratch.work);
    std::vector<Row> starts(entries.begin() + 1, entries.end());
    starts.insert(starts.begin(), at);
    graph::search(layers_[0], *travel_, prepared, starts.data(), starts.size(), n_nodes, r.effort, false, scratch);
  } else {
    graph::search(layers_[0], *travel_, prepared, entries.data(), entries.size(), n_nodes, r.effort, false, scratch);
  }
  if (r.hardness) r.hardness[q] = scratch.hardness;

  thread_local std::vector<Found> found;
  found.clear();
  for (const Candidate c : scratch.pool) {
    const Row row = rows_->first_passing(node_of(c), r.filter);
    if (row == kNone) continue;
    found.push_back({distance_of(c), node_of(c), rows_->id(row)});
    if (found.size() == r.depth) break;
  }
  if (store_ != travel_) {
    void* exact = prepared + travel_bytes;
    store_->prepare(query, exact);
    thread_local std::vector<Row> block;
    thread_local std::vector<float> distance;
    block.clear();
    for (const Found& f : found) block.push_back(f.node);
    distance.resize(block.size());
    store_->prefetch(block.data(), std::min<size_t>(block.size(), 8));
    for (size_t i = 0; i < block.size(); i += 4) {
      const size_t n = std::min<size_t>(4, block.size() - i);
      if (i + 8 < block.size()) store_->prefetch(block.data() + i + 8, std::min<size_t>(4, block.size() - i - 8));
      store_->score(exact, block.data() + i, n, std::numeric_limits<float>::infinity(), distance.data() + i);
    }
    scratch.work.distances += block.size();
    for (size_t i = 0; i < found.size(); ++i) found[i].distance = distance[i];
  }
  float* distances = r.distances + q * r.k;
  const size_t n = emit(*rows_, r.filter, found.data(), found.size(), r.k, r.ids + q * r.k, distances);
  for (size_t i = 0; i < n; ++i) distances[i] = seen(r.metric, distances[i]);
  r.counts[q] = static_cast<uint32_t>(n);
}

Work GraphIndex::search(const Request& r, const Poll& poll) const {
  std::atomic<uint64_t> n_distances{0}, n_hops{0};
  parallel_for(r.n, 4, r.threads, [&](size_t begin, size_t end) {
    struct Inside {
      std::atomic<uint32_t>& count;
      ~Inside() { count.fetch_sub(1, std::memory_order_release); }
    };
    uint32_t half = epoch_.load() & 1;
    for (readers_[half].fetch_add(1); (epoch_.load() & 1) != half; readers_[half].fetch_add(1)) {
      readers_[half].fetch_sub(1);
      half ^= 1;
    }
    const Inside inside{readers_[half]};
    const auto entries = std::atomic_load(&entries_);
    const size_t n_nodes = this->n_nodes();
    Scratch& scratch = Scratch::of_this_thread();
    scratch.work = {};
    for (size_t q = begin; q < end; ++q) answer(r, q, *entries, n_nodes, scratch);
    n_distances += scratch.work.distances;
    n_hops += scratch.work.hops;
  }, poll);
  return {n_distances, n_hops};
}

void GraphIndex::wait_for_readers() const {
  const uint32_t old = epoch_.fetch_add(1) & 1;
  while (readers_[old].load(std::memory_order_acquire) > 0) std::this_thread::yield();
}

void GraphIndex::insert(const Row* nodes, size_t n, const BuildRules& rules,
                        const std::function<void(size_t)>& progress, const Poll& poll) {
  std::vector<Row> entries = this->entries();
  size_t begin = 0;
  if (entries.empty() && n > 0) {
    entries.push_back(nodes[0]);
    for (Layer& layer : layers_)
      if (layer.holds(nodes[0])) layer.write(nodes[0], nullptr, 0);
    set_entries(entries);
    set_n_nodes(std::max<size_t>(n_nodes(), nodes[0] + size_t{1}));
    begin = 1;
  }
  const size_t old = std::max<size_t>(1, n_nodes());
  size_t at = begin;
  for (const size_t relative : batch_ends(old, n - begin)) {
    const size_t end = begin + relative, count = end - at;
    // Lists of new nodes are empty while their batch searches; nothing points at them yet.
    std::vector<Row> starts(count, kNone);
    size_t limit = n_nodes();
    for (size_t i = at; i < end; ++i) limit = std::max<size_t>(limit, nodes[i] + size_t{1});
    for (size_t l = layers_.size(); l-- > 0;) {
      BuildRules layer_rules = rules;
      layer_rules.new_degree = std::min(rules.new_degree, layers_[l].degree());
      std::vector<Row> from;
      for (const Row e : entries)
        if (layers_[l].holds(e)) from.push_back(e);
      if (from.empty()) continue;
      for (Row& s : starts)
        if (s == kNone) s = from[0];
      if (layers_.size() == 1) std::fill(starts.begin(), starts.end(), kNone);
      insert_batch(layers_[l], *travel_, nodes + at, count, limit, starts,
                   layers_.size() == 1 ? from : std::vector<Row>{}, layer_rules, poll);
    }
    set_n_nodes(limit);
    at = end;
    if (progress) progress(at);
  }
}

std::vector<bool> GraphIndex::alive() const {
  std::vector<bool> wanted(n_nodes());
  for (size_t v = 0; v < wanted.size(); ++v) wanted[v] = rows_->first(static_cast<Row>(v)) != kNone;
  return wanted;
}

void GraphIndex::connect(size_t beam) {
  std::vector<Row> entries = this->entries();
  graph::connect(layers_[0], *travel_, entries, alive(), n_nodes(), beam);
  set_entries(std::move(entries));
}

size_t GraphIndex::count_unreachable() const { return unreachable(layers_[0], entries(), alive(), n_nodes()).size(); }

void GraphIndex::consolidate(const std::vector<bool>& dead, const BuildRules& rules, const Poll& poll) {
  std::vector<Row> entries;
  for (const Row e : this->entries())
    if (!dead[e]) entries.push_back(e);
  for (Layer& layer : layers_) graph::consolidate(layer, *travel_, dead, n_nodes(), rules, poll);
  if (entries.empty())
    for (size_t v = 0; v < n_nodes() && entries.empty(); ++v)
      if (!dead[v] && layers_.back().holds(static_cast<Row>(v))) entries.push_back(static_cast<Row>(v));
  if (entries.empty())
    for (size_t v = 0; v < n_nodes() && entries.empty(); ++v)
      if (!dead[v]) entries.push_back(static_cast<Row>(v));
  set_entries(std::move(entries));
}

}  // namespace nearly::graph
