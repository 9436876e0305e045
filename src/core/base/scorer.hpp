// The seam between vectors and navigators: what does one comparison cost?
//
// A scorer owns stored codes and a metric. A navigator sees vectors through it only: it prepares a query once and has
// blocks of rows scored, smaller is nearer. One indirect call per block, plain loops inside.
#pragma once
#include <cstddef>

#include "base/table.hpp"

namespace nearly {

class Scorer {
 public:
  virtual ~Scorer() = default;

  virtual size_t n_rows() const = 0;
  virtual size_t n_bytes() const = 0;
  // Bytes of a query that `prepare` reads.
  virtual size_t query_bytes() const = 0;
  // Bytes that `prepare` writes; the caller's buffer is 64-byte aligned.
  virtual size_t prepared_bytes() const = 0;
  // `query`: dim floats, or packed bits for bit metrics.
  virtual void prepare(const void* query, void* prepared) const = 0;
  // The same from a stored row, for building.
  virtual void prepare_row(Row row, void* prepared) const = 0;
  // out[i] = distance of row rows[i]. Above `bound` any value >= bound will do.
  virtual void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const = 0;
  // The same for n consecutive rows.
  virtual void score_range(const void* prepared, Row first, size_t n, float* out) const = 0;
  // A hint that these rows are scored next.
  virtual void prefetch(const Row* rows, size_t n) const { (void)rows, (void)n; }
};

}  // namespace nearly
