// Scans by codes of queries that share what is compared: each row is read once for a panel of them.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/table.hpp"
#include "lists/best.hpp"
#include "lists/candidates.hpp"
#include "lists/meeting.hpp"
#include "lists/scan.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kRowBlock = 48;  // rows that all panels meet while they are in the first cache
constexpr size_t kMostQueries = 256;  // that one task carries over all rows: their panels stay in the second cache,
constexpr size_t kMostHeld = size_t{1} << 25;  // and of what codes cannot tell apart so much may be held, for all of them

// A group of queries while it meets the rows.
class Panels {
 public:
  Panels(const Coded& coded, const PanelScorer& scorer, const kernels::Table& by, const Request& r, size_t begin, size_t end,
         size_t n_nodes)
      : coded_(coded), scorer_(scorer), by_(by), n_(end - begin), width_(scorer.panel_width(by)),
        n_panels_((n_ + width_ - 1) / width_), panel_bytes_((scorer.panel_bytes(by) + 63) / 64 * 64),
        panels_(buffer(n_panels_ * panel_bytes_)), bounds_(n_panels_ * width_, std::numeric_limits<float>::infinity()),
        tile_(kRowBlock * width_) {
    const size_t bytes = (coded.codes->prepared_bytes() + 63) / 64 * 64;
    const Buffer prepared = buffer(width_ * bytes);
    std::vector<const void*> each(width_);
    for (size_t i = 0; i < width_; ++i) each[i] = static_cast<char*>(prepared.get()) + i * bytes;
    for (size_t first = 0; first < n_; first += width_) {
      const size_t some = std::min(width_, n_ - first);
      coded.codes->prepare_many(r.queries + (begin + first) * r.query_bytes, r.query_bytes, some, prepared.get(), bytes);
      scorer.pack(by, each.data(), some, panel(first / width_));
    }
    // However many cannot be told apart, to compare these is less than to compare all: it never gives up.
    candidates_.reserve(n_);
    for (size_t q = 0; q < n_; ++q)
      candidates_.emplace_back(std::min(std::max(r.k, kFewest), std::max<size_t>(1, n_nodes)), n_nodes);
  }

  void meet(const Row* rows, size_t n) {
    uint32_t near[kRowBlock];
    for (size_t p = 0; p < n_panels_; ++p) {
      const size_t first = p * width_, last = std::min(width_, n_ - first);
      const uint32_t used = last == 32 ? ~0u : (1u << last) - 1;
      scorer_.score_panel(by_, panel(p), bounds_.data() + first, rows, n, tile_.data(), near);
      for (size_t i = 0; i < n; ++i)
        for (uint32_t columns = near[i] & used; columns; columns &= columns - 1) {
          const auto c = static_cast<size_t>(std::countr_zero(columns));
          const float d = tile_[i * width_ + c];
          Candidates& candidates = candidates_[first + c];
          candidates.offer(rows[i], d, d + coded_.spread * std::fabs(d));
          bounds_[first + c] = candidates.limit();
        }
    }
  }

  // What may be among the nearest of a query.
  void near(size_t q, std::vector<Row>& out) {
    candidates_[q].shrink();
    out.clear();
    candidates_[q].for_each([&](Row node) { out.push_back(node); });
  }

 private:
  void* panel(size_t p) const { return static_cast<char*>(panels_.get()) + p * panel_bytes_; }

  const Coded& coded_;
  const PanelScorer& scorer_;
  const kernels::Table& by_;
  const size_t n_, width_, n_panels_, panel_bytes_;
  const Buffer panels_;
  std::vector<float> bounds_, tile_;
  std::vector<Candidates> candidates_;
};

}  // namespace

Compared scan_panels(const Scorer& scorer, const Coded& coded, const PanelScorer& panels, const Rows& rows, size_t n_nodes,
                     const std::vector<Row>* only, const Request& r, const Poll& poll) {
  const kernels::Table& by = kernels::active();
  const size_t total = only ? only->size() : n_nodes, width = panels.panel_width(by);
  const size_t threads = r.threads ? r.threads : default_threads();
  const size_t share = (r.n + threads - 1) / threads, half = std::max<size_t>(1, width / 2);
  // Half a panel takes half the time; of fewer queries, on many threads, a task has what makes a panel worth while.
  const size_t task = share < half ? std::max(share, kTogether) : (share + half - 1) / half * half;
  const size_t most = std::clamp(kMostHeld / std::max<size_t>(1, total) / half * half, half, kMostQueries);
  std::atomic<uint64_t> by_codes{0}, by_vectors{0};
  parallel_for(r.n, std::min(most, task), threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows.readers());
    Request seen = r;
    seen.filter = rows.begin(reading, r.filter, n_nodes);
    Panels group(coded, panels, by, r, begin, end, total);
    by_codes += (end - begin) * meet_nodes(*coded.codes, rows, n_nodes, only, kRowBlock, poll,
                                           [&](const Row* nodes, size_t n) { group.meet(nodes, n); });
    const Buffer prepared = buffer(scorer.prepared_bytes());
    std::vector<Row> near;
    for (size_t q = begin; q < end; ++q) {
      group.near(q - begin, near);
      by_vectors += scan_one(scorer, rows, n_nodes, &near, seen, q, prepared.get(), poll);
      poll_if_due(poll);
    }
  }, poll);
  return {by_codes, by_vectors};
}

}  // namespace nearly::lists
