#include "lists/scan.hpp"

#include <algorithm>
#include <limits>

#include "lists/best.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kBlock = 256;

// Calls take(node, distance) for every node, a block at a time.
template <typename Take>
void for_each(const Scorer& scorer, const void* prepared, size_t n_nodes, const std::vector<Row>* only, const Poll& poll,
              Take take) {
  float distance[kBlock];
  const size_t n = only ? only->size() : n_nodes;
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    if (i % (64 * kBlock) == 0) poll_if_due(poll);
    if (only)
      scorer.score(prepared, only->data() + i, block, std::numeric_limits<float>::infinity(), distance);
    else
      scorer.score_range(prepared, static_cast<Row>(i), block, distance);
    for (size_t j = 0; j < block; ++j) take(only ? (*only)[i + j] : static_cast<Row>(i + j), distance[j]);
  }
}

}  // namespace

void scan(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r,
          const Poll& poll) {
  const auto answer = [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(scorer.prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      scorer.prepare(r.queries + q * r.query_bytes, prepared.get());
      Best best(std::min(r.k, std::max<size_t>(1, n_nodes)));
      for_each(scorer, prepared.get(), n_nodes, only, poll, [&](Row node, float d) {
        if (!(d <= best.bound())) return;  // nor what is not a number: sums that overflowed
        const Row row = rows.first_passing(node, r.filter);
        if (row != kNone) best.offer({d, node, rows.id(row)});
      });
      write_answer(rows, r, q, best);
    }
  };
  parallel_for(r.n, 1, r.threads, answer, poll);
}

Ragged scan_radius(const Scorer& scorer, const Rows& rows, size_t n_nodes, float radius, const Request& r,
                   const Poll& poll) {
  Ragged out{std::vector<std::vector<int64_t>>(r.n), std::vector<std::vector<float>>(r.n)};
  const auto answer = [&](size_t begin, size_t end) {
    const Buffer prepared = buffer(scorer.prepared_bytes());
    for (size_t q = begin; q < end; ++q) {
      scorer.prepare(r.queries + q * r.query_bytes, prepared.get());
      std::vector<std::pair<float, int64_t>> inside;
      for_each(scorer, prepared.get(), n_nodes, nullptr, poll, [&](Row node, float d) {
        const float shown = seen(r.metric, d);
        if (!(shown <= radius)) return;
        for (Row row = rows.first(node); row != kNone; row = rows.next(row))
          if (r.filter.passes(row)) inside.emplace_back(shown, rows.id(row));
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
