#include "lists/blocks.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "kernels/block.hpp"
#include "lists/best.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kRowBlock = 48;     // rows decoded at a time: with a panel of queries they stay in the second cache
constexpr size_t kQueryGroup = 1024;  // queries that one task carries over all rows
constexpr double kLargest = 1e37;    // squared norm up to which no product overflows

double norm_squared(const float* x, size_t dim) {
  double part[4] = {};
  size_t j = 0;
  for (; j + 4 <= dim; j += 4)
    for (size_t i = 0; i < 4; ++i) part[i] += static_cast<double>(x[j + i]) * x[j + i];
  for (; j < dim; ++j) part[0] += static_cast<double>(x[j]) * x[j];
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// A query's candidates: nodes whose value may still be among the k smallest. Value = reach - 2 * product, with
// reach = |x|^2 (0 under ip); true values lie within `slack` of it, slack = error * (|x|^2 + |q|^2) + a floor for numbers
// so small that their products underflow.
class Candidates {
 public:
  void begin(size_t k, double query_slack) {
    k_ = k;
    slack_ = query_slack;
    limit_ = std::numeric_limits<double>::infinity();
    full_ = 4 * k + 64;
    most_ = 8 * k + 4096;
    nodes_.clear();
  }
  // A product at least this large, less half the row's own part, deserves a look.
  // (value - slack <= limit is product >= (reach - slack_x) / 2 - (limit + slack_q) / 2; rounded to the safe side.)
  float threshold() const {
    if (gave_up()) return std::numeric_limits<float>::infinity();
    const double h = (limit_ + slack_) / 2;
    return static_cast<float>(-(h + std::fabs(h) * 1e-6));
  }
  void offer(Row node, double value, double row_slack) {
    const double slack = row_slack + slack_;
    if (value - slack > limit_) return;
    nodes_.push_back({value - slack, value + slack, node});
    if (nodes_.size() >= full_) shrink();
  }
  void shrink() {
    if (nodes_.size() <= k_) return;
    std::nth_element(nodes_.begin(), nodes_.begin() + static_cast<ptrdiff_t>(k_ - 1), nodes_.end(),
                     [](const Entry& a, const Entry& b) { return a.most < b.most; });
    limit_ = std::min(limit_, nodes_[k_ - 1].most);
    std::erase_if(nodes_, [&](const Entry& e) { return e.least > limit_; });
    full_ = std::max(full_, 2 * nodes_.size());
    if (nodes_.size() > most_) give_up();
  }
  // Products cannot tell the rows apart (they lie far from the origin, near each other), or overflow.
  void give_up() {
    limit_ = -std::numeric_limits<double>::infinity();
    nodes_ = {};
  }
  bool gave_up() const { return limit_ == -std::numeric_limits<double>::infinity(); }
  template <typename Take> void for_each(Take take) const {
    for (const Entry& e : nodes_) take(e.node);
  }

 private:
  struct Entry {
    double least, most;
    Row node;
  };
  size_t k_ = 1, full_ = 0, most_ = 0;
  double slack_ = 0, limit_ = 0;
  std::vector<Entry> nodes_;
};

}  // namespace

uint64_t scan_blocks(const Scorer& scorer, const Dense& dense, const Rows& rows, size_t n_nodes, const Request& asked,
                     const Poll& poll) {
  const size_t dim = dense.dim;
  // Each of the two sums makes at most dim + a few roundings of relative size 2^-24.
  const double error = static_cast<double>(dim + 16) * 0x1p-22, tiny = static_cast<double>(dim + 16) * 0x1p-146;
  // A row's part of its value. The zero vector has no direction: cosine puts it at 1, where |q - x|^2 would be 2.
  const auto reach_of = [&](double norm) {
    return asked.metric == Metric::kDot ? 0.0 : asked.metric == Metric::kCosine && norm == 0 ? 1.0 : norm;
  };
  const size_t threads = asked.threads ? asked.threads : default_threads();
  const size_t per_task = std::min(kQueryGroup, std::max<size_t>(16, (asked.n + threads - 1) / threads));
  std::atomic<uint64_t> compared{0};
  parallel_for(asked.n, per_task, threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows.readers());
    Request r = asked;
    r.filter = rows.begin(reading, asked.filter, n_nodes);
    const size_t n = end - begin;
    std::vector<float> queries(n * dim);
    std::vector<Candidates> candidates(n);
    for (size_t q = 0; q < n; ++q) {
      float* out = queries.data() + q * dim;
      dense.decode_query(r.queries + (begin + q) * r.query_bytes, out);
      const double norm = norm_squared(out, dim);
      candidates[q].begin(std::min(r.k, std::max<size_t>(1, n_nodes)), error * norm + tiny);
      if (norm > kLargest) candidates[q].give_up();
    }
    const kernels::Packed packed(queries.data(), n, dim);
    const size_t width = packed.width();
    std::vector<float> block(kRowBlock * dim), tile(kRowBlock * width), thresholds(packed.panels() * width, 0.0f);
    std::vector<double> norms(kRowBlock);
    std::vector<float> halves(kRowBlock);
    for (size_t q = n; q < thresholds.size(); ++q) thresholds[q] = std::numeric_limits<float>::infinity();
    for (size_t q = 0; q < n; ++q) thresholds[q] = candidates[q].threshold();
    Row met[kRowBlock];
    for (size_t at = 0; at < n_nodes;) {
      // Rows come before vectors: a place that is free now may be filled while we look.
      size_t count = 0;
      for (; at < n_nodes && count < kRowBlock; ++at) {
        met[count] = static_cast<Row>(at);  // kept or overwritten by the next
        count += rows.first_passing(static_cast<Row>(at), r.filter) != kNone;
      }
      dense.decode(met, count, block.data());
      compared += count * n;
      for (size_t i = 0; i < count; ++i) {
        norms[i] = norm_squared(block.data() + i * dim, dim);
        if (norms[i] > kLargest)
          for (size_t q = 0; q < n; ++q) candidates[q].give_up(), thresholds[q] = candidates[q].threshold();
        const double h = (reach_of(norms[i]) - error * norms[i]) / 2;
        halves[i] = static_cast<float>(h - std::fabs(h) * 1e-6);
      }
      for (size_t p = 0; p < packed.panels(); ++p) {
        packed.multiply(block.data(), count, p, tile.data());
        const float* limit = thresholds.data() + p * width;
        for (size_t i = 0; i < count; ++i) {
          const float* product = tile.data() + i * width;
          int any = 0;
          for (size_t c = 0; c < width; ++c) any |= product[c] >= halves[i] + limit[c];
          if (!any) continue;
          for (size_t c = 0; c < width; ++c) {
            const size_t q = p * width + c;
            if (q >= n || !(product[c] >= halves[i] + limit[c])) continue;
            const double value = reach_of(norms[i]) - 2.0 * product[c];
            candidates[q].offer(met[i], value, error * norms[i]);
            thresholds[q] = candidates[q].threshold();
          }
        }
      }
      poll_if_due(poll);
    }
    const Buffer prepared = buffer(scorer.prepared_bytes());
    std::vector<Row> nodes;
    std::vector<float> distance;
    for (size_t q = 0; q < n; ++q) {
      candidates[q].shrink();
      if (candidates[q].gave_up()) {
        compared += scan_one(scorer, rows, n_nodes, nullptr, r, begin + q, prepared.get(), poll);
        continue;
      }
      nodes.clear();
      candidates[q].for_each([&](Row node) { nodes.push_back(node); });
      distance.resize(nodes.size());
      scorer.prepare(r.queries + (begin + q) * r.query_bytes, prepared.get());
      scorer.score(prepared.get(), nodes.data(), nodes.size(), std::numeric_limits<float>::infinity(), distance.data());
      Best best(std::min(r.k, std::max<size_t>(1, n_nodes)));
      for (size_t i = 0; i < nodes.size(); ++i) {
        const Row row = rows.first_passing(nodes[i], r.filter);
        if (row != kNone) best.offer({distance[i], nodes[i], rows.id(row)});
      }
      write_answer(rows, r, begin + q, best);
    }
  }, poll);
  return compared;
}

}  // namespace nearly::lists
