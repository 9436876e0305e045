// What becomes of a vector before it is coded, and in which of two ways codes are compared then.
//
// Under cosine vectors and queries have unit length and are compared by squared distance. Under inner product, where norms
// are about even, rows gain a coordinate that brings them to one norm: the l2 order of these is the order by inner product
// (Neyshabur & Srebro, ICML 2015, section 4). Where norms are uneven, products are compared as they are.
#pragma once
#include <cstddef>

#include "base/metric.hpp"

namespace nearly::quant {

float sum_of_squares(const float* x, size_t n);

struct Form {
  size_t dim = 0;               // floats of a vector and of a query
  Metric metric = Metric::kL2;  // l2, cosine or ip
  float norm_bound = 0;         // ip: the norm that rows are lengthened to by sqrt(norm_bound^2 - |x|^2); 0: they are not
  bool lengthened() const { return metric == Metric::kDot && norm_bound > 0; }
  bool product() const { return metric == Metric::kDot && norm_bound == 0; }  // inner product in its own form
  size_t input_dim() const { return dim + (lengthened() ? 1 : 0); }

  // A vector (of unit length already under cosine) or a query, as input_dim() floats.
  void row(const float* x, float* out) const;
  void query(const float* x, float* out) const;
};

}  // namespace nearly::quant
