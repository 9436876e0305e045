// Every row compared: the exact answer.
#pragma once
#include <vector>

#include "base/metric.hpp"
#include "base/rows.hpp"
#include "base/scorer.hpp"
#include "base/threads.hpp"

namespace nearly::lists {

// One batch of queries and where the answers go: n * k ids and distances, n counts.
struct Request {
  const uint8_t* queries;
  size_t query_bytes;  // from one query to the next
  size_t n, k;
  Filter filter;
  size_t threads = 0;
  Metric metric;  // how distances are shown
  int64_t* ids;
  float* distances;
  uint32_t* counts;
};

// Scores the nodes below n_nodes that hold rows, or only those listed; returns how often it compared. A query is one
// reader of `rows`; throws Retired when other rows took the place of these.
uint64_t scan(const Scorer& scorer, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& request,
          const Poll& poll);

// As `scan`, by codes first: those nodes are compared by `scorer` that are farther by code than the k-th, the 10th at least,
// by at most `spread` of its distance. Who is nearer than its code tells by more than that is missed. From kTogether queries
// on, each row of codes is read once for a panel of them, where codes have panels; the answers are the same.
struct Coded {
  const Scorer* codes;
  float spread;
};
struct Compared {
  uint64_t by_codes, by_vectors;
};
constexpr size_t kTogether = 4;  // fewer take less one after another
Compared scan_coded(const Scorer& scorer, const Coded& coded, const Rows& rows, size_t n_nodes, const std::vector<Row>* only,
                    const Request& request, const Poll& poll);

struct Ragged {
  std::vector<std::vector<int64_t>> ids;
  std::vector<std::vector<float>> distances;
};
// All rows within `radius` (as shown, inclusive), ascending by (distance, id).
Ragged scan_radius(const Scorer& scorer, const Rows& rows, size_t n_nodes, float radius, const Request& request,
                   const Poll& poll);

}  // namespace nearly::lists
