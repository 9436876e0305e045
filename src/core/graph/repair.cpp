// What keeps a graph whole: reachability after building, and lists without the dead after deletions.
#include <algorithm>

#include "graph/build.hpp"

namespace nearly::graph {
namespace {

void flood(const Layer& layer, Row from, size_t n_nodes, std::vector<bool>& seen, const Poll& poll,
           const Among& among = {}) {
  std::vector<Row> stack;
  std::vector<Row> list(layer.degree());
  const auto visit = [&](Row v) {
    if (v < n_nodes && !seen[v] && (!among || among.has(v))) {
      seen[v] = true;
      stack.push_back(v);
    }
  };
  visit(from);
  for (size_t turn = 1; !stack.empty(); ++turn) {
    if (turn % 4096 == 0) poll_if_due(poll);
    const Row node = stack.back();
    stack.pop_back();
    if (!layer.holds(node)) continue;
    const size_t n = layer.read(node, list.data());
    for (size_t i = 0; i < n; ++i) visit(list[i]);
  }
}

}  // namespace

std::vector<Row> unreachable(const Layer& layer, const std::vector<Row>& entries, const std::vector<bool>& wanted,
                             size_t n_nodes, const Poll& poll) {
  std::vector<bool> seen(n_nodes, false);
  for (const Row e : entries) flood(layer, e, n_nodes, seen, poll);
  std::vector<Row> lost;
  for (size_t v = 0; v < n_nodes; ++v)
    if (wanted[v] && !seen[v] && layer.holds(static_cast<Row>(v))) lost.push_back(static_cast<Row>(v));
  return lost;
}

void connect(Layer& layer, const Scorer& scorer, std::vector<Row>& entries, const std::vector<bool>& wanted,
             size_t n_nodes, size_t beam, const Poll& poll) {
  std::vector<bool> seen(n_nodes, false);
  for (const Row e : entries) flood(layer, e, n_nodes, seen, poll);
  std::vector<Row> list(layer.degree());
  Scratch& scratch = Scratch::of_this_thread();
  Row last = kNone;  // the lost node that was linked last
  for (size_t v = 0; v < n_nodes; ++v) {
    const Row node = static_cast<Row>(v);
    if (seen[v] || !wanted[v] || !layer.holds(node)) continue;
    poll_if_due(poll);
    // A list with room among the nearest nodes that can be reached takes the edge.
    void* prepared = scratch.prepared(scorer.prepared_bytes());
    scorer.prepare_row(node, prepared);
    Effort effort;
    effort.width = beam;
    search(layer, scorer, prepared, entries.data(), entries.size(), n_nodes, effort, false, scratch);
    const auto link_from = [&](Row from) {
      const size_t size = layer.read(from, list.data());
      if (size == layer.degree() || !seen[from]) return false;
      list[size] = node;
      layer.write(from, list.data(), size + 1);
      return true;
    };
    bool linked = false;
    for (const Candidate c : scratch.pool)
      if ((linked = link_from(node_of(c)))) break;
    // Under inner product all are near the same few, whose lists are full: then the lost hang on one another.
    if (!linked && last != kNone) linked = link_from(last);
    if (!linked) entries.push_back(node);
    last = node;
    flood(layer, node, n_nodes, seen, poll);
  }
}

size_t connect_labels(Layer& layer, const Scorer& scorer, Labels& labels, const std::vector<bool>& wanted, size_t n_nodes,
                      size_t beam, const Poll& poll) {
  // The nodes of each label, one after the other.
  std::vector<size_t> ends(labels.n_labels() + 1, 0);
  const auto count = std::min(n_nodes, labels.n_nodes());
  for (size_t v = 0; v < count; ++v)
    for (const Labels::Label label : labels.of(static_cast<Row>(v))) ++ends[label + size_t{1}];
  for (size_t l = 1; l < ends.size(); ++l) ends[l] += ends[l - 1];
  std::vector<Row> nodes(ends.back());
  std::vector<size_t> at(ends.begin(), ends.end() - 1);
  for (size_t v = 0; v < count; ++v)
    for (const Labels::Label label : labels.of(static_cast<Row>(v))) nodes[at[label]++] = static_cast<Row>(v);
  std::vector<bool> seen(n_nodes, false);
  std::vector<Row> list(layer.degree());
  Scratch& scratch = Scratch::of_this_thread();
  size_t lost = 0;
  for (size_t l = 0; l < labels.n_labels(); ++l) {
    const auto label = static_cast<Labels::Label>(l);
    const Among among{nullptr, 0, &labels, label};
    for (const Row e : labels.entries(label)) flood(layer, e, n_nodes, seen, poll, among);
    for (size_t i = ends[l]; i < ends[l + 1]; ++i) {
      const Row node = nodes[i];
      if (seen[node] || !wanted[node]) continue;
      poll_if_due(poll);
      void* prepared = scratch.prepared(scorer.prepared_bytes());
      scorer.prepare_row(node, prepared);
      Effort effort;
      effort.width = beam;
      const std::vector<Row> from = labels.entries(label);
      search(layer, scorer, prepared, from.data(), from.size(), n_nodes, effort, false, scratch, among);
      const bool linked = std::any_of(scratch.pool.begin(), scratch.pool.end(), [&](Candidate c) {
        const size_t size = layer.read(node_of(c), list.data());
        if (size == layer.degree() || !seen[node_of(c)]) return false;
        list[size] = node;
        layer.write(node_of(c), list.data(), size + 1);
        return true;
      });
      if (linked || labels.enter(label, node))
        flood(layer, node, n_nodes, seen, poll, among);
      else
        ++lost;
    }
    for (size_t i = ends[l]; i < ends[l + 1]; ++i) seen[nodes[i]] = false;
  }
  return lost;
}

void consolidate(Layer& layer, const Scorer& scorer, const std::vector<bool>& dead, size_t n_nodes,
                 const BuildRules& rules, const Poll& poll) {
  const size_t degree = layer.degree();
  // Lists may name nodes beyond n_nodes: those of a batch whose insertion was cut short. Their names go too.
  const auto gone = [&](Row w) { return w >= n_nodes || dead[w]; };
  // New lists are made from a snapshot and written afterwards: the result does not depend on who came first.
  std::vector<Row> touched;
  std::vector<Row> list(degree);
  for (size_t v = 0; v < n_nodes; ++v) {
    const Row node = static_cast<Row>(v);
    if (dead[v] || !layer.holds(node)) continue;
    const size_t n = layer.read(node, list.data());
    if (std::any_of(list.begin(), list.begin() + n, gone)) touched.push_back(node);
  }
  std::vector<Row> fresh(touched.size() * degree);
  std::vector<uint32_t> counts(touched.size());
  const auto repair = [&](size_t begin, size_t end) {
    std::vector<Row> own(degree), theirs(degree), rows;
    std::vector<Neighbor> candidates;
    Scratch& scratch = Scratch::of_this_thread();
    for (size_t i = begin; i < end; ++i) {
      const Row node = touched[i];
      rows.clear();
      const auto take = [&](Row w) {
        if (!gone(w) && w != node) rows.push_back(w);
      };
      const size_t n = layer.read(node, own.data());
      for (size_t j = 0; j < n; ++j) {
        take(own[j]);
        if (own[j] >= n_nodes || !dead[own[j]]) continue;
        const size_t m = layer.read(own[j], theirs.data());
        for (size_t t = 0; t < m; ++t) take(theirs[t]);
      }
      std::sort(rows.begin(), rows.end());
      rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
      Row* out = fresh.data() + i * degree;
      if (rows.size() <= degree) {
        std::copy(rows.begin(), rows.end(), out);
        counts[i] = static_cast<uint32_t>(rows.size());
        continue;
      }
      void* prepared = scratch.prepared(scorer.prepared_bytes());
      scorer.prepare_row(node, prepared);
      std::vector<float> distance(rows.size());
      scorer.score(prepared, rows.data(), rows.size(), __builtin_huge_valf(), distance.data());
      candidates.clear();
      for (size_t j = 0; j < rows.size(); ++j) candidates.push_back({distance[j], rows[j]});
      counts[i] = static_cast<uint32_t>(prune(scorer, node, candidates, degree, rules, out));
    }
  };
  parallel_for(touched.size(), 16, rules.threads, repair, poll);
  for (size_t i = 0; i < touched.size(); ++i) layer.write(touched[i], fresh.data() + i * degree, counts[i]);
}

}  // namespace nearly::graph
