// Batches of queries against float vectors: products by blocks find candidates, the scorer itself ranks them.
#pragma once
#include <functional>

#include "lists/scan.hpp"

namespace nearly::lists {

// How nodes become floats: writes dim floats for each.
struct Dense {
  size_t dim;
  std::function<void(const Row* nodes, size_t n, float* out)> decode;
  std::function<void(const void* query, float* out)> decode_query;
};

// As scan(), for l2, cosine and ip, and with the same answer bit for bit: what the products estimate is only used to
// leave out nodes that cannot be among the k nearest, by a bound on the rounding errors of both computations. A thousand
// queries are one reader.
uint64_t scan_blocks(const Scorer& scorer, const Dense& dense, const Rows& rows, size_t n_nodes, const std::vector<Row>* only,
                     const Request& request, const Poll& poll);

}  // namespace nearly::lists
