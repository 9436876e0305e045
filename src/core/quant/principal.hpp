// Leading eigenvectors of a covariance matrix. Our own: the bits of LAPACK depend on its threads and its vendor.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/threads.hpp"

namespace nearly::quant {

// axes: n_axes orthonormal rows of d, by falling variance; variances: their Rayleigh quotients. The same bits for any
// number of threads.
// Few of many: orthogonal iteration with a final rotation within the subspace; after a few rounds the subspace holds nearly
// all of the energy that the true leading eigenvectors hold, which is what a projection needs (Golub & Van Loan, section
// 8.2.4). Otherwise all of them (eigen.hpp).
void principal_axes(const float* covariance, size_t d, size_t n_axes, size_t rounds, uint64_t seed, double* axes,
                    double* variances, size_t threads, const Poll& poll);

}  // namespace nearly::quant
