// Eigenvalues and eigenvectors of a symmetric matrix. Our own: the bits of LAPACK depend on its threads and its vendor.
#pragma once
#include <cstddef>
#include <vector>

#include "base/threads.hpp"

namespace nearly::quant {

// a: n * n, symmetric and finite; destroyed. values: n, in no order. Returns n rows of n: row i is the unit eigenvector of
// values[i]. The same bits for any number of threads.
// Householder reflections to a tridiagonal matrix, then implicit QR steps with Wilkinson's shift (Golub & Van Loan, 4th
// edition, algorithms 8.3.1 to 8.3.3). Errors are of the order of the largest eigenvalue's rounding.
std::vector<double> eigenvectors(std::vector<double>& a, size_t n, std::vector<double>& values, size_t threads,
                                 const Poll& poll);

}  // namespace nearly::quant
