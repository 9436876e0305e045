// A graph over nodes: layers, entry points, a scorer to travel by and one to rank by.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "base/metric.hpp"
#include "base/rows.hpp"
#include "base/scorer.hpp"
#include "base/threads.hpp"
#include "graph/build.hpp"
#include "graph/filtered.hpp"
#include "graph/layer.hpp"
#include "graph/search.hpp"
#include "graph/widen.hpp"

namespace nearly::graph {

// One batch of queries and where the answers go: n * k ids and distances, n counts, n hardnesses (or null). A query that
// is a stored vector finds itself at once; `without` (or null) has the node that each is to do without, or kNone.
struct Request {
  const uint8_t* queries;
  size_t query_bytes;
  size_t n, k;
  Effort effort;
  size_t depth;  // pool entries that are ranked by the store, at least k; of longer walks more
  Filter filter;  // where a walk under one does not come to its end, no answer is counted
  Sieve sieve;    // the same in bits of nodes, and how to walk under it
  size_t threads = 0;
  Metric metric;
  int64_t* ids;
  float* distances;
  uint32_t* counts;
  float* hardness = nullptr;
  const Row* without = nullptr;
  // A walk among these nodes alone, from these starts (or null): what may be answered is among them.
  const uint64_t* among = nullptr;
  size_t n_among = 0;
  const Row* starts = nullptr;
  size_t n_starts = 0;
};

class GraphIndex {
 public:
  // `travel` and `store` may be one; the index keeps both alive. layers[0] is the ground; upper layers hold fewer nodes.
  GraphIndex(std::vector<Layer> layers, std::vector<Row> entries, std::shared_ptr<Scorer> travel,
             std::shared_ptr<Scorer> store, std::shared_ptr<Rows> rows, size_t n_nodes,
             std::shared_ptr<Table> wide = nullptr)
      : layers_(std::move(layers)), travel_(std::move(travel)), store_(std::move(store)), rows_(std::move(rows)),
        n_nodes_(n_nodes) {
    set_entries(std::move(entries));
    if (wide) wide_.emplace(std::move(wide), nullptr);
  }

  Work search(const Request& request, const Poll& poll) const;

  // Inserts nodes in this order; their codes are in both scorers. Readers see them once their lists stand.
  void insert(const Row* nodes, size_t n, const BuildRules& rules, const std::function<void(size_t)>& progress,
              const Poll& poll);
  // Writes the wide lists of some nodes, if there are any.
  void widen(const Row* nodes, size_t n, size_t threads, const Poll& poll) {
    if (wide_) graph::widen(layers_[0], *wide_, *travel_, nodes, n, n_nodes(), threads, poll);
  }
  bool has_wide() const { return wide_.has_value(); }
  // Leads to every node that holds rows, and to `also`, which will.
  void connect(size_t beam, const std::vector<Row>& also, const Poll& poll);
  // Labels that lists are made for from now on; null: none. Of a single layer.
  void set_labels(std::shared_ptr<Labels> labels) { labels_ = std::move(labels); }
  const std::shared_ptr<Labels>& labels() const { return labels_; }
  // As `connect` within each label; returns how many nodes stay out of reach there.
  size_t connect_labels(size_t beam, const std::vector<Row>& also, const Poll& poll);
  size_t count_unreachable(const Poll& poll) const;
  // How much alike the neighbors of a node are in whether they pass, a bit a node: the share of the variance that lies between
  // nodes, by the lists of some (intraclass correlation). 0 where what passes is as if drawn, 1 where it is apart.
  float unevenness(const uint64_t* bits, size_t n_bits) const;
  void consolidate(const std::vector<bool>& dead, const BuildRules& rules, const Poll& poll);

  size_t query_bytes() const { return travel_->query_bytes(); }
  // Nodes that every table has a place for.
  size_t room() const {
    size_t n = std::min({layers_[0].lists()->rows(), travel_->n_rows(), store_->n_rows(), rows_->first_rows()->rows()});
    for (size_t l = 1; l < layers_.size(); ++l) n = std::min(n, layers_[l].slots()->rows());
    if (wide_) n = std::min(n, wide_->lists()->rows());
    return n;
  }
  bool borrowed() const {
    return (wide_ && wide_->lists()->borrowed()) ||
           std::any_of(layers_.begin(), layers_.end(), [](const Layer& layer) { return layer.lists()->borrowed(); });
  }

  std::vector<Row> entries() const { return *std::atomic_load(&entries_); }
  void set_entries(std::vector<Row> entries) {
    std::atomic_store(&entries_, std::make_shared<const std::vector<Row>>(std::move(entries)));
  }
  size_t n_nodes() const { return n_nodes_.load(std::memory_order_acquire); }
  void set_n_nodes(size_t n) { n_nodes_.store(n, std::memory_order_release); }

  // Another graph took the place of this one: searches that begin later may throw Retired.
  void retire() { validity_.retire(*rows_->readers()); }
  // Waits until everybody who reads now has ended: what could be seen may then be used again.
  void wait_for_readers(const Poll& poll) const { rows_->readers()->wait(poll); }

 private:
  class Answer;  // one query under way
  void enter(const Row* nodes, size_t n);
  std::vector<bool> alive(const std::vector<Row>& also = {}) const;

  std::vector<Layer> layers_;
  std::optional<Layer> wide_;
  std::shared_ptr<const std::vector<Row>> entries_;
  std::shared_ptr<Scorer> travel_, store_;
  std::shared_ptr<Rows> rows_;
  std::shared_ptr<Labels> labels_;  // the writer's
  std::atomic<size_t> n_nodes_;
  Validity validity_;
};

}  // namespace nearly::graph
