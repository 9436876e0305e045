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
  // The same of n queries, so many bytes apart, into places so many bytes apart: bit for bit, in less time where they can share
  // what a query takes.
  virtual void prepare_many(const void* queries, size_t query_stride, size_t n, void* prepared, size_t stride) const {
    for (size_t i = 0; i < n; ++i)
      prepare(static_cast<const char*>(queries) + i * query_stride, static_cast<char*>(prepared) + i * stride);
  }
  // The same from a stored row, for building.
  virtual void prepare_row(Row row, void* prepared) const = 0;
  // out[i] = distance of row rows[i]. Above `bound` any value >= bound will do.
  virtual void score(const void* prepared, const Row* rows, size_t n, float bound, float* out) const = 0;
  // The same for n consecutive rows.
  virtual void score_range(const void* prepared, Row first, size_t n, float* out) const = 0;
  // A hint that these rows are scored next.
  virtual void prefetch(const Row* rows, size_t n) const { (void)rows, (void)n; }
};

// Scorers whose rows have to be made something else before each comparison, which many queries can share.
class WideningScorer {
 public:
  virtual ~WideningScorer() = default;
  // Bytes of a row that was made ready, a multiple of 64; 0 where rows are compared as they are.
  virtual size_t widened_bytes() const = 0;
  virtual void widen_rows(const Row* rows, size_t n, void* out) const = 0;
  // Distances to n such rows, one after another: what `score` says.
  virtual void score_widened(const void* prepared, const void* rows, size_t n, float* out) const = 0;
};

namespace kernels {
struct Table;
}

// Scorers that compare rows with several prepared queries at once, a panel of them. How many depends on the kernels: whoever
// packs panels names these, and scores by the same.
class PanelScorer {
 public:
  virtual ~PanelScorer() = default;
  // Queries of a panel, at most 32; 0 where there are none.
  virtual size_t panel_width(const kernels::Table& by) const = 0;
  virtual size_t panel_bytes(const kernels::Table& by) const = 0;
  // Puts 1 to panel_width() prepared queries beside each other; the caller's buffer is 64-byte aligned.
  virtual void pack(const kernels::Table& by, const void* const* prepared, size_t n, void* panel) const = 0;
  // tile[i * panel_width() + c] = distance of row rows[i] from query c, what `score` says; bit c of near[i] is set where it
  // is not above bounds[c]. Bounds are as many as the panel is wide.
  virtual void score_panel(const kernels::Table& by, const void* panel, const float* bounds, const Row* rows, size_t n,
                           float* tile, uint32_t* near) const = 0;
};

// Codes of what vectors are beyond the center of the list that they are in, in slots of which a list has some in a row.
class ListScorer {
 public:
  static constexpr size_t kUnit = 32;  // slots looked up together; lists begin at multiples of it

  virtual ~ListScorer() = default;
  virtual size_t n_slots() const = 0;
  virtual size_t n_lists() const = 0;
  virtual size_t n_bytes() const = 0;
  virtual size_t query_bytes() const = 0;
  virtual size_t prepared_bytes() const = 0;
  virtual void prepare(const void* query, void* prepared) const = 0;
  // out[i] = about the distance from the center of list `first` + i: squared, or a product, less what is the same for all.
  virtual void centers(const void* prepared, size_t first, size_t n, float* out) const = 0;
  // The slots among n from `first`, a multiple of kUnit, whose distances are not above `bound`, as words: a distance's bits
  // in the order of floats, then twice the slot. `base` is what `centers` says of their list. `out` has n places; returns
  // how many it took.
  virtual size_t scan(const void* prepared, float base, Row first, size_t n, float bound, int64_t* out) const = 0;
  // A hint that these slots are scanned next.
  virtual void prefetch(Row first, size_t n) const = 0;
};

}  // namespace nearly
