#include "graph/index.hpp"

#include <algorithm>
#include <limits>

namespace nearly::graph {
namespace {

constexpr size_t kAbreast = 3;  // queries that one thread has under way: see the levers in benchmarks/README.md
constexpr size_t kChunk = 48;   // queries that a thread takes at a time
constexpr size_t kKept = 2;     // times k candidates that codes keep for the ranking, however narrow the pool: levers table

}  // namespace

// A query's way through the index: prepare, walk, rank the nearest by the store. Like its walk, it asks for memory in one
// turn and uses it in the next.
class GraphIndex::Answer {
 public:
  void begin(const GraphIndex& index, const Request& request, size_t q, const std::vector<Row>& entries, size_t n_nodes,
             Scratch& scratch) {
    index_ = &index;
    request_ = &request;
    q_ = q;
    scratch_ = &scratch;
    const uint8_t* query = request.queries + q * request.query_bytes;
    const size_t travel_bytes = (index.travel_->prepared_bytes() + 63) / 64 * 64;
    auto* prepared = static_cast<uint8_t*>(scratch.prepared(travel_bytes + index.store_->prepared_bytes()));
    exact_ = prepared + travel_bytes;
    index.travel_->prepare(query, prepared);
    const Among among{request.among, request.n_among, nullptr, 0};
    if (request.starts)
      starts_.assign(request.starts, request.starts + request.n_starts);
    else
      starts_.assign(entries.begin(), entries.end());
    // Where the descent ends joins the entries: what hangs on the first of them alone must be met from there.
    const Row without = request.without ? request.without[q] : kNone;
    Row nearest = request.starts || entries.empty() || entries[0] == without ? kNone : entries[0];
    for (size_t l = index.layers_.size(); nearest != kNone && --l > 0;)
      if (index.layers_[l].holds(nearest))
        nearest = descend(index.layers_[l], *index.travel_, prepared, nearest, n_nodes, scratch.work, without);
    if (nearest != kNone && nearest != entries[0]) starts_.push_back(nearest);
    Effort effort = request.effort;
    if (index.store_ != index.travel_) effort.keep = std::min(request.depth, kKept * request.k);
    effort.ranked = request.depth;
    if (effort.stretch > 1 && !request.sieve.bits) {
      effort.whose = this;
      effort.counts = [](const void* whose, Row node) {
        const auto* answer = static_cast<const Answer*>(whose);
        return answer->index_->rows_->first_passing(node, answer->request_->filter) != kNone;
      };
    }
    if (request.sieve.bits) {
      Sieve sieve = request.sieve;
      if (index.wide_) sieve.wide = &*index.wide_;
      filtered_.begin(index.layers_[0], *index.travel_, prepared, starts_.data(), starts_.size(), n_nodes, effort, sieve,
                      scratch, without);
    } else {
      walk_.begin(index.layers_[0], *index.travel_, prepared, starts_.data(), starts_.size(), n_nodes, effort, false,
                  scratch, without, among);
    }
    stage_ = Stage::kWalk;
  }

  Scratch& scratch() { return *scratch_; }
  // Gives the thread's memory back clean, also when a scorer threw.
  void drop() {
    walk_.end();
    filtered_.end();
  }

  // False when the answer is written.
  bool turn() {
    switch (stage_) {
      case Stage::kWalk:
        if (request_->sieve.bits ? filtered_.turn() : walk_.turn()) return true;
        cut_short_ = request_->sieve.bits ? filtered_.cut_short() : request_->filter.bits && walk_.cut_short();
        depth_ = request_->depth;
        if (index_->store_ != index_->travel_) {
          const Walk& walk = request_->sieve.bits ? filtered_ : walk_;
          depth_ = walk.worth_ranking(request_->k, request_->depth);
        }
        drop();
        ask();
        stage_ = Stage::kCollect;
        return true;
      case Stage::kCollect:
        collect();
        stage_ = Stage::kRank;
        return true;
      case Stage::kRank:
        rank();
        write();
    }
    return false;
  }

 private:
  enum class Stage { kWalk, kCollect, kRank };

  void ask() const {
    const Rows& rows = *index_->rows_;
    const size_t n = std::min(scratch_->pool.size(), depth_);
    for (size_t i = 0; i < n; ++i) __builtin_prefetch(rows.first_rows()->row(node_of(scratch_->pool[i])));
  }

  void collect() {
    const Rows& rows = *index_->rows_;
    found_.clear();
    block_.clear();
    for (const Candidate c : scratch_->pool) {
      const Row row = rows.first_passing(node_of(c), request_->filter);
      if (row == kNone) continue;
      rows.prefetch(row);
      found_.push_back({distance_of(c), node_of(c), row});
      block_.push_back(node_of(c));
      if (found_.size() == depth_) break;
    }
    if (index_->store_ != index_->travel_) index_->store_->prefetch(block_.data(), block_.size());
  }

  void rank() {
    for (Found& f : found_) f.id = index_->rows_->id(static_cast<Row>(f.id));
    if (index_->store_ == index_->travel_) return;
    const Scorer& store = *index_->store_;
    store.prepare(request_->queries + q_ * request_->query_bytes, exact_);
    distance_.resize(block_.size());
    store.score(exact_, block_.data(), block_.size(), std::numeric_limits<float>::infinity(), distance_.data());
    scratch_->work.ranked += block_.size();
    for (size_t i = 0; i < found_.size(); ++i) found_[i].distance = distance_[i];
  }

  void write() {
    const Request& r = *request_;
    if (r.hardness) r.hardness[q_] = scratch_->hardness;
    float* distances = r.distances + q_ * r.k;
    const size_t n_found = cut_short_ ? 0 : found_.size();
    const size_t n = emit(*index_->rows_, r.filter, found_.data(), n_found, r.k, r.ids + q_ * r.k, distances);
    for (size_t i = 0; i < n; ++i) distances[i] = seen(r.metric, distances[i]);
    r.counts[q_] = static_cast<uint32_t>(n);
  }

  const GraphIndex* index_ = nullptr;
  const Request* request_ = nullptr;
  size_t q_ = 0, depth_ = 0;
  bool cut_short_ = false;
  Scratch* scratch_ = nullptr;
  void* exact_ = nullptr;
  Stage stage_ = Stage::kWalk;
  Walk walk_;
  FilteredWalk filtered_;
  std::vector<Row> starts_, block_;
  std::vector<Found> found_;
  std::vector<float> distance_;
};

Work GraphIndex::search(const Request& asked, const Poll& poll) const {
  std::atomic<uint64_t> n_distances{0}, n_hops{0}, n_ranked{0}, n_hopped{0}, n_gave_up{0};
  parallel_for(asked.n, kChunk, asked.threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows_->readers());
    validity_.check(reading);
    Request r = asked;
    r.filter = rows_->begin(reading, asked.filter, ~size_t{0});
    const auto entries = std::atomic_load(&entries_);
    const size_t n_nodes = this->n_nodes();
    thread_local Answer answers[kAbreast];
    struct Drop {
      ~Drop() {
        for (Answer& answer : answers) answer.drop();
      }
    };
    const Drop drop;
    size_t next = begin, active = 0;
    Answer* open[kAbreast];
    for (; active < kAbreast && next < end; ++active) {
      Scratch& scratch = Scratch::of_this_thread(active);
      scratch.work = {};
      open[active] = &answers[active];
      open[active]->begin(*this, r, next++, *entries, n_nodes, scratch);
    }
    const size_t slots = active;
    while (active > 0)
      for (size_t i = 0; i < active;) {
        if (open[i]->turn()) {
          ++i;
        } else if (next < end) {
          open[i]->begin(*this, r, next++, *entries, n_nodes, open[i]->scratch());
        } else {
          std::swap(open[i], open[--active]);
        }
      }
    for (size_t i = 0; i < slots; ++i) {
      const Work work = Scratch::of_this_thread(i).work;
      n_distances += work.distances;
      n_hops += work.hops;
      n_ranked += work.ranked;
      n_hopped += work.hopped;
      n_gave_up += work.gave_up;
    }
  }, poll);
  return {n_distances, n_hops, n_ranked, n_hopped, n_gave_up};
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
    if (labels_) enter(nodes, 1);
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
      layer_rules.labels = labels_.get();
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
    if (labels_) enter(nodes + at, count);
    set_n_nodes(limit);
    at = end;
    if (progress) progress(at);
  }
}

// The first nodes with a label are its entries.
void GraphIndex::enter(const Row* nodes, size_t n) {
  for (size_t i = 0; i < n; ++i)
    for (const Labels::Label label : labels_->of(nodes[i])) labels_->enter(label, nodes[i]);
}

std::vector<bool> GraphIndex::alive(const std::vector<Row>& also) const {
  std::vector<bool> wanted(n_nodes());
  for (size_t v = 0; v < wanted.size(); ++v) wanted[v] = rows_->first(static_cast<Row>(v)) != kNone;
  for (const Row node : also)
    if (node < wanted.size()) wanted[node] = true;
  return wanted;
}

size_t GraphIndex::connect_labels(size_t beam, const std::vector<Row>& also, const Poll& poll) {
  return labels_ ? graph::connect_labels(layers_[0], *travel_, *labels_, alive(also), n_nodes(), beam, poll) : 0;
}

void GraphIndex::connect(size_t beam, const std::vector<Row>& also, const Poll& poll) {
  std::vector<Row> entries = this->entries();
  graph::connect(layers_[0], *travel_, entries, alive(also), n_nodes(), beam, poll);
  set_entries(std::move(entries));
}

float GraphIndex::unevenness(const uint64_t* bits, size_t n_bits) const {
  constexpr size_t kLists = 128;
  const Readers::Reading reading(*rows_->readers());
  const Layer& ground = layers_[0];
  const size_t n = std::min(n_nodes(), ground.lists()->rows()), some = std::min(n, kLists);
  std::vector<Row> list(ground.degree());
  std::vector<std::pair<double, double>> met(some);  // how many neighbors, and how many of them pass
  double neighbors = 0, passing = 0;
  for (size_t i = 0; i < some; ++i) {
    const size_t count = ground.read(static_cast<Row>(i * n / some), list.data());
    size_t pass = 0;
    for (size_t j = 0; j < count; ++j) pass += list[j] < n_bits && (bits[list[j] / 64] >> (list[j] % 64) & 1);
    met[i] = {static_cast<double>(count), static_cast<double>(pass)};
    neighbors += met[i].first;
    passing += met[i].second;
  }
  const double share = neighbors > 0 ? passing / neighbors : 0, each = share * (1 - share);
  double squares = 0, drawn = 0, alike = 0;  // of differences; of these if neighbors were drawn; and more if they were all alike
  for (const auto& [count, pass] : met) {
    squares += (pass - count * share) * (pass - count * share);
    drawn += count * each;
    alike += count * (count - 1) * each;
  }
  return alike > 0 ? static_cast<float>(std::clamp((squares - drawn) / alike, 0.0, 1.0)) : 0.0f;
}

size_t GraphIndex::count_unreachable(const Poll& poll) const {
  return unreachable(layers_[0], entries(), alive(), n_nodes(), poll).size();
}

void GraphIndex::consolidate(const std::vector<bool>& dead, const BuildRules& rules, const Poll& poll) {
  std::vector<Row> entries;
  for (const Row e : this->entries())
    if (!dead[e]) entries.push_back(e);
  BuildRules by_labels = rules;
  by_labels.labels = labels_.get();
  for (Layer& layer : layers_) graph::consolidate(layer, *travel_, dead, n_nodes(), by_labels, poll);
  if (entries.empty())
    for (size_t v = 0; v < n_nodes() && entries.empty(); ++v)
      if (!dead[v] && layers_.back().holds(static_cast<Row>(v))) entries.push_back(static_cast<Row>(v));
  if (entries.empty())
    for (size_t v = 0; v < n_nodes() && entries.empty(); ++v)
      if (!dead[v]) entries.push_back(static_cast<Row>(v));
  set_entries(std::move(entries));
}

}  // namespace nearly::graph
