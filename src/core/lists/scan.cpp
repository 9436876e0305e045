#include "lists/scan.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "kernels/table.hpp"
#include "lists/best.hpp"
#include "lists/candidates.hpp"
#include "lists/meeting.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kBlock = 256;
constexpr size_t kAhead = 16;  // rows asked for at a time
constexpr size_t kGroup = 64;  // queries that meet the same rows
constexpr size_t kShared = 3;  // queries from which on rows are widened once for all
constexpr size_t kNear = 24 << 10;  // bytes of rows that stay in the first cache meanwhile

// Calls take(node, distance) for every node that holds rows, a block at a time; returns how many there were. Rows come
// before vectors: a place that is free now may be filled while we look, one that is taken stays as it is.
template <typename Take>
size_t for_each(const Scorer& scorer, const void* prepared, const Rows& rows, size_t n_nodes,
                const std::vector<Row>* only, const Poll& poll, Take take) {
  Row nodes[kBlock];
  float distance[kBlock];
  size_t total = 0;
  for (size_t i = 0, n = only ? only->size() : n_nodes; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    if (i % (64 * kBlock) == 0) poll_if_due(poll);
    if (!only && rows.all_hold(static_cast<Row>(i), block)) {
      scorer.score_range(prepared, static_cast<Row>(i), block, distance);
      for (size_t j = 0; j < block; ++j) take(static_cast<Row>(i + j), distance[j]);
      total += block;
      continue;
    }
    size_t count = 0;
    for (size_t j = i; j < i + block; ++j) {
      const Row node = only ? (*only)[j] : static_cast<Row>(j);
      nodes[count] = node;  // kept or overwritten by the next
      count += rows.first(node) != kNone;
    }
    // Chosen rows lie apart: each few are asked for before those at hand are compared.
    const auto ask = [&](size_t first) {
      if (first < count) scorer.prefetch(nodes + first, std::min(kAhead, count - first));
    };
    ask(0);
    for (size_t j = 0; j < count; j += kAhead) {
      ask(j + kAhead);
      scorer.score(prepared, nodes + j, std::min(kAhead, count - j), std::numeric_limits<float>::infinity(), distance + j);
    }
    for (size_t j = 0; j < count; ++j) take(nodes[j], distance[j]);
    total += count;
  }
  return total;
}

}  // namespace

size_t scan_one(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r,
                size_t q, void* prepared, const Poll& poll) {
  scorer.prepare(r.queries + q * r.query_bytes, prepared);
  Best best(std::min(r.k, std::max<size_t>(1, n_nodes)));
  const size_t compared = for_each(scorer, prepared, rows, n_nodes, only, poll, [&](Row node, float d) {
    if (d > best.bound()) return;
    const Row row = rows.first_passing(node, r.filter);
    if (row != kNone) best.offer({d, node, rows.id(row)});
  });
  write_answer(rows, r, q, best);
  return compared;
}

// Rows are read once for all queries of a group, while these find them in the first cache.
uint64_t scan(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r,
              const Poll& poll) {
  const size_t threads = r.threads ? r.threads : default_threads(), share = (r.n + threads - 1) / threads;
  // A row takes about as much as a query, or less; how much all take may change meanwhile.
  const size_t block = std::clamp<size_t>(kNear / std::max<size_t>(1, scorer.query_bytes()), 4, kMostNodes);
  const auto* widens = dynamic_cast<const WideningScorer*>(&scorer);
  const size_t widened = widens ? widens->widened_bytes() : 0;
  const size_t bytes = (scorer.prepared_bytes() + 63) / 64 * 64;
  std::atomic<uint64_t> compared{0};
  parallel_for(r.n, std::clamp<size_t>(share, 1, kGroup), threads, [&](size_t begin, size_t end) {
    const size_t n = end - begin;
    const Buffer prepared = buffer(n * bytes);
    const auto query = [&](size_t q) { return static_cast<char*>(prepared.get()) + q * bytes; };
    const Readers::Reading reading(*rows.readers());
    Request seen = r;
    seen.filter = rows.begin(reading, r.filter, n_nodes);
    if (n == 1) {
      compared += scan_one(scorer, rows, n_nodes, only, seen, begin, prepared.get(), poll);
      return;
    }
    std::vector<Best> best(n, Best(std::min(r.k, std::max<size_t>(1, n_nodes))));
    for (size_t q = 0; q < n; ++q) scorer.prepare(r.queries + (begin + q) * r.query_bytes, query(q));
    float distance[kMostNodes];
    const bool widen = widened && n >= kShared;
    const Buffer wide = buffer(widen ? block * widened : 0);
    compared += n * meet_nodes(scorer, rows, n_nodes, only, block, poll, [&](const Row* nodes, size_t count) {
      const bool all = nodes[count - 1] - nodes[0] == count - 1;  // one after another
      if (widen) widens->widen_rows(nodes, count, wide.get());
      for (size_t q = 0; q < n; ++q) {
        if (widen)
          widens->score_widened(query(q), wide.get(), count, distance);
        else if (all)
          scorer.score_range(query(q), nodes[0], count, distance);
        else
          scorer.score(query(q), nodes, count, std::numeric_limits<float>::infinity(), distance);
        for (size_t i = 0; i < count; ++i) {
          if (distance[i] > best[q].bound()) continue;
          const Row row = rows.first_passing(nodes[i], seen.filter);
          if (row != kNone) best[q].offer({distance[i], nodes[i], rows.id(row)});
        }
      }
    });
    for (size_t q = 0; q < n; ++q) write_answer(rows, seen, begin + q, best[q]);
  }, poll);
  return compared;
}

Compared scan_coded(const Scorer& scorer, const Coded& coded, const Rows& rows, size_t n_nodes,
                    const std::vector<Row>* only, const Request& r, const Poll& poll) {
  const auto* panels = r.n >= kTogether ? dynamic_cast<const PanelScorer*>(coded.codes) : nullptr;
  if (panels && panels->panel_width(kernels::active())) return scan_panels(scorer, coded, *panels, rows, n_nodes, only, r, poll);
  const size_t total = only ? only->size() : n_nodes;
  std::atomic<uint64_t> by_codes{0}, by_vectors{0};
  const auto answer = [&](size_t begin, size_t end) {
    const Buffer by_code = buffer(coded.codes->prepared_bytes()), by_vector = buffer(scorer.prepared_bytes());
    std::vector<Row> near;
    for (size_t q = begin; q < end; ++q) {
      const Readers::Reading reading(*rows.readers());
      Request seen = r;
      seen.filter = rows.begin(reading, r.filter, n_nodes);
      coded.codes->prepare(r.queries + q * r.query_bytes, by_code.get());
      // However many cannot be told apart, to compare these is less than to compare all: it never gives up.
      Candidates candidates(std::min(std::max(r.k, kFewest), std::max<size_t>(1, total)), total);
      by_codes += for_each(*coded.codes, by_code.get(), rows, n_nodes, only, poll, [&](Row node, float d) {
        if (d <= candidates.limit()) candidates.offer(node, d, d + coded.spread * std::fabs(d));
      });
      candidates.shrink();
      near.clear();
      candidates.for_each([&](Row node) { near.push_back(node); });
      by_vectors += scan_one(scorer, rows, n_nodes, &near, seen, q, by_vector.get(), poll);
    }
  };
  parallel_for(r.n, 1, r.threads, answer, poll);
  return {by_codes, by_vectors};
}

Ragged scan_radius(const Scorer& scorer, const Rows& rows, size_t n_nodes, float radius, const Request& r,
                   const Poll& poll) {
  Ragged out{std::vector<std::vector<int64_t>>(r.n), std::vector<std::vector<float>>(r.n)};
  const auto answer = [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(scorer.prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      const Readers::Reading reading(*rows.readers());
      const Filter filter = rows.begin(reading, r.filter, n_nodes);
      scorer.prepare(r.queries + q * r.query_bytes, prepared.get());
      std::vector<std::pair<float, int64_t>> inside;
      for_each(scorer, prepared.get(), rows, n_nodes, nullptr, poll, [&](Row node, float d) {
        const float shown = std::isnan(d) ? std::numeric_limits<float>::infinity() : seen(r.metric, d);
        if (shown > radius) return;
        for (Row row = rows.first(node); row != kNone; row = rows.next(row))
          if (filter.passes(row)) inside.emplace_back(shown, rows.id(row));
      });
      std::sort(inside.begin(), inside.end());
      for (const auto& [d, id] : inside) {
        out.distances[q].push_back(d);
        out.ids[q].push_back(id);
      }
    }
  };
  parallel_for(r.n, 1, r.threads, answer, poll);
  return out;
}

}  // namespace nearly::lists
