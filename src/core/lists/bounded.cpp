#include "lists/bounded.hpp"

#include <algorithm>
#include <atomic>

#include "lists/best.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kBlock = 256;   // nodes looked at before their vectors are compared
constexpr size_t kAbreast = 8;   // queries that share a block of codes while it is near

struct Query {
  Buffer codes, vectors;
  Best best;
};

// The nodes of a block that may be among the nearest, and hold a row that passes.
size_t chosen(const float* low, Row first, size_t n, float bound, const Rows& rows, const Filter& filter, Row* nodes) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    nodes[count] = first + static_cast<Row>(i);
    count += !(low[i] > bound);
  }
  return static_cast<size_t>(std::remove_if(nodes, nodes + count, [&](Row node) {
    return rows.first_passing(node, filter) == kNone;
  }) - nodes);
}

}  // namespace

Compared scan_bounded(const Scorer& scorer, const Bounds& bounds, const Rows& rows, size_t n_nodes, const Request& r,
                      const Poll& poll) {
  std::atomic<uint64_t> by_vectors{0};
  parallel_for(r.n, kAbreast, r.threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows.readers());
    Request here = r;
    here.filter = rows.begin(reading, r.filter, n_nodes);
    std::vector<Query> queries;
    for (size_t q = begin; q < end; ++q) {
      const uint8_t* query = r.queries + q * r.query_bytes;
      queries.push_back({buffer(bounds.prepared_bytes), buffer(scorer.prepared_bytes()),
                         Best(std::min(r.k, std::max<size_t>(1, n_nodes)))});
      bounds.prepare(query, queries.back().codes.get());
      scorer.prepare(query, queries.back().vectors.get());
    }
    Row nodes[kBlock];
    float low[kBlock], distance[kBlock];
    uint64_t compared = 0;
    for (size_t i = 0; i < n_nodes; i += kBlock) {
      const size_t block = std::min(kBlock, n_nodes - i);
      if (i % (16 * kBlock) == 0) poll_if_due(poll);
      for (Query& query : queries) {
        const float bound = query.best.bound();
        bounds.lower(query.codes.get(), static_cast<Row>(i), block, bound, low);
        const size_t n = chosen(low, static_cast<Row>(i), block, bound, rows, here.filter, nodes);
        if (n == 0) continue;
        scorer.prefetch(nodes, n);
        scorer.score(query.vectors.get(), nodes, n, bound, distance);
        compared += n;
        for (size_t j = 0; j < n; ++j) {
          if (distance[j] > query.best.bound()) continue;
          const Row row = rows.first_passing(nodes[j], here.filter);
          if (row != kNone) query.best.offer({distance[j], nodes[j], rows.id(row)});
        }
      }
    }
    for (size_t q = begin; q < end; ++q) write_answer(rows, here, q, queries[q - begin].best);
    by_vectors += compared;
  }, poll);
  return {static_cast<uint64_t>(r.n) * n_nodes, by_vectors};
}

}  // namespace nearly::lists
