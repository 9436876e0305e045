#include "lists/blocks.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <optional>

#include "kernels/block.hpp"
#include "lists/best.hpp"
#include "lists/candidates.hpp"
#include "lists/whole.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kRowBlock = 48;      // rows rounded at a time: with a panel of queries they stay in the second cache
constexpr size_t kQueryGroup = 1024;  // queries that one task carries over all rows
constexpr size_t kSample = 64;        // rows whose mean is the center

// Bounds as floats: rounded to the safe side, by more than what the three roundings of their use take away.
float round_down(double x) { return static_cast<float>(x - std::fabs(x) * 1e-6); }
float round_up(double x) { return static_cast<float>(x + std::fabs(x) * 1e-6); }

bool is_zero(const float* x, size_t dim) {
  return std::all_of(x, x + dim, [](float each) { return each == 0; });
}

// What a vector adds to values and to their uncertainty.
struct Part {
  Whole whole;
  double reach, slack;
};

// Compares rows with a group of queries by products of whole numbers, to leave out what cannot be among the nearest.
//
// The value of a row is its part |x|^2 (nothing under ip) - 2 <q, x>; but for the query's own |q|^2 that is the squared
// distance, which does not change when both are seen from a center. The scorer's value differs by its rounding, at most
// `rounding` * (|q|^2 + |x|^2), under ip `rounding` * |q| |x|; the product by that of the whole numbers.
class Screen {
 public:
  Screen(const Dense& dense, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r, size_t begin,
         size_t end);

  // Looks at all rows; returns how many there were.
  size_t run(const Poll& poll);
  Candidates& candidates(size_t q) { return candidates_[q]; }

 private:
  bool is_dot() const { return r_.metric == Metric::kDot; }
  Row node(size_t i) const { return only_ ? (*only_)[i] : static_cast<Row>(i); }
  void choose_center();
  Part part(float* v, int16_t* out) const;
  void take_queries(size_t begin);
  void set_floor(size_t q);
  bool take_rows(const Row* nodes, size_t count);
  void compare(const Row* nodes, size_t count);
  void offer(Row node, const Part& row, size_t q, double product);

  const Dense& dense_;
  const Rows& rows_;
  const std::vector<Row>* const only_;
  const size_t n_nodes_;  // to look at
  const Request& r_;
  const size_t n_, even_;
  const double rounding_;
  Rounding to_whole_;
  double error_ = 0;  // of a product, in steps

  std::vector<Candidates> candidates_;
  std::vector<Part> queries_;
  std::optional<kernels::PackedWhole> packed_;
  std::vector<float> floors_, scales_;

  Part parts_[kRowBlock];
  float row_floors_[kRowBlock], row_scales_[kRowBlock];
  std::vector<float> block_;
  std::vector<int16_t> whole_;
  kernels::PackedWhole::Rows whole_rows_;
  std::vector<int32_t> tile_;
};

Screen::Screen(const Dense& dense, const Rows& rows, size_t n_nodes, const std::vector<Row>* only, const Request& r,
               size_t begin, size_t end)
    : dense_(dense), rows_(rows), only_(only), n_nodes_(only ? only->size() : n_nodes), r_(r), n_(end - begin), even_(kernels::PackedWhole::even(dense.dim)),
      // Each sum makes at most dim + a few roundings of relative size 2^-24; the center makes a few more.
      rounding_(static_cast<double>(dense.dim + 16) * 0x1p-22), to_whole_(dense.dim),
      block_(kRowBlock * dense.dim), whole_(kRowBlock * even_, 0) {
  if (!is_dot()) choose_center();
  error_ = to_whole_.error() + (is_dot() ? rounding_ * kReach * kReach : 0.0);
  take_queries(begin);
}

void Screen::choose_center() {
  const size_t sample = std::min(kSample, n_nodes_);
  std::vector<Row> nodes(sample + 1);
  size_t count = 0;
  for (size_t i = 0; i < sample; ++i) {
    nodes[count] = node(i * n_nodes_ / sample);  // kept or overwritten by the next
    count += rows_.first_passing(nodes[count], r_.filter) != kNone;
  }
  std::vector<float> vectors(count * dense_.dim);
  dense_.decode(nodes.data(), count, vectors.data());
  to_whole_.center_on(vectors.data(), count);
}

Part Screen::part(float* v, int16_t* out) const {
  const Whole whole = to_whole_.round(v, out);
  return {whole, is_dot() ? 0.0 : whole.squared, is_dot() ? 0.0 : rounding_ * whole.squared};
}

void Screen::take_queries(size_t begin) {
  std::vector<int16_t> whole(n_ * even_, 0);
  std::vector<float> query(dense_.dim);
  candidates_.reserve(n_);
  queries_.resize(n_);
  for (size_t q = 0; q < n_; ++q) {
    candidates_.emplace_back(std::min(r_.k, std::max<size_t>(1, n_nodes_)));
    dense_.decode_query(r_.queries + (begin + q) * r_.query_bytes, query.data());
    const bool directed = r_.metric != Metric::kCosine || !is_zero(query.data(), dense_.dim);
    queries_[q] = part(query.data(), whole.data() + q * even_);
    queries_[q].slack += static_cast<double>(dense_.dim + 16) * 0x1p-146;  // products that underflow
    if (!queries_[q].whole.usable || !directed) candidates_[q].give_up();
  }
  packed_.emplace(whole.data(), n_, dense_.dim);
  tile_.resize(kRowBlock * packed_->width());
  floors_.assign(packed_->panels() * packed_->width(), std::numeric_limits<float>::infinity());
  scales_.assign(floors_.size(), 0.0f);
  for (size_t q = 0; q < n_; ++q) {
    scales_[q] = queries_[q].whole.inverse;
    set_floor(q);
  }
}

// A row may be among the nearest where value - slacks <= limit, which is
// <q, x> >= (row's reach - row's slack) / 2 - (limit + query's slack) / 2, here the second part, in the query's steps.
void Screen::set_floor(size_t q) {
  const Candidates& c = candidates_[q];
  floors_[q] = c.gave_up() ? std::numeric_limits<float>::infinity()
                           : round_down((c.limit() + queries_[q].slack) * -0.5 * queries_[q].whole.inverse);
}

// False when a row cannot be compared.
bool Screen::take_rows(const Row* nodes, size_t count) {
  dense_.decode(nodes, count, block_.data());
  for (size_t i = 0; i < count; ++i) {
    float* v = block_.data() + i * dense_.dim;
    const bool directed = r_.metric != Metric::kCosine || !is_zero(v, dense_.dim);
    Part& row = parts_[i] = part(v, whole_.data() + i * even_);
    if (!row.whole.usable) return false;
    if (!directed) row.reach += 1, row.slack += 1e-6;  // cosine puts the zero vector at 1, where |q - x|^2 / 2 is a half
    row_scales_[i] = row.whole.inverse;
    row_floors_[i] = round_down((row.reach - row.slack) * 0.5 * row.whole.inverse);
  }
  return true;
}

void Screen::compare(const Row* nodes, size_t count) {
  const size_t width = packed_->width();
  kernels::Reached reached[kRowBlock + 1];
  packed_->take(whole_.data(), count, &whole_rows_);
  for (size_t p = 0; p < packed_->panels(); ++p) {
    packed_->multiply(whole_rows_, p, 1, tile_.data(), packed_->width());
    const size_t hits = packed_->reaching(tile_.data(), count, row_floors_, row_scales_, floors_.data() + p * width,
                                          scales_.data() + p * width, static_cast<float>(error_), reached);
    for (size_t h = 0; h < hits; ++h) {
      const size_t i = reached[h].row;
      for (uint32_t columns = reached[h].columns; columns; columns &= columns - 1) {
        const auto c = static_cast<size_t>(std::countr_zero(columns));
        if (p * width + c < n_) offer(nodes[i], parts_[i], p * width + c, tile_[i * width + c]);
      }
    }
  }
}

void Screen::offer(Row node, const Part& row, size_t q, double product) {
  const Part& query = queries_[q];
  const double unit = 2 * query.whole.step * row.whole.step, slack = row.slack + query.slack;
  candidates_[q].offer(node, round_down(row.reach - unit * (product + error_) - slack),
                       round_up(row.reach - unit * (product - error_) + slack));
  set_floor(q);
}

size_t Screen::run(const Poll& poll) {
  size_t total = 0;
  Row met[kRowBlock];
  for (size_t at = 0; at < n_nodes_;) {
    // Rows come before vectors: a place that is free now may be filled while we look.
    size_t count = 0;
    for (; at < n_nodes_ && count < kRowBlock; ++at) {
      met[count] = node(at);  // kept or overwritten by the next
      count += rows_.first_passing(met[count], r_.filter) != kNone;
    }
    total += count;
    if (!take_rows(met, count)) {
      for (Candidates& each : candidates_) each.give_up();
      break;
    }
    compare(met, count);
    poll_if_due(poll);
  }
  return total;
}

}  // namespace

uint64_t scan_blocks(const Scorer& scorer, const Dense& dense, const Rows& rows, size_t n_nodes,
                     const std::vector<Row>* only, const Request& asked, const Poll& poll) {
  const size_t threads = asked.threads ? asked.threads : default_threads();
  const size_t per_task = std::min(kQueryGroup, std::max<size_t>(16, (asked.n + threads - 1) / threads));
  std::atomic<uint64_t> compared{0};
  parallel_for(asked.n, per_task, threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows.readers());
    Request r = asked;
    r.filter = rows.begin(reading, asked.filter, n_nodes);
    Screen screen(dense, rows, n_nodes, only, r, begin, end);
    compared += screen.run(poll) * (end - begin);
    const Buffer prepared = buffer(scorer.prepared_bytes());
    std::vector<Row> nodes;
    std::vector<float> distance;
    for (size_t q = begin; q < end; ++q) {
      poll_if_due(poll);
      Candidates& candidates = screen.candidates(q - begin);
      candidates.shrink();
      if (candidates.gave_up()) {
        compared += scan_one(scorer, rows, n_nodes, only, r, q, prepared.get(), poll);
        continue;
      }
      nodes.clear();
      candidates.for_each([&](Row node) { nodes.push_back(node); });
      distance.resize(nodes.size());
      scorer.prepare(r.queries + q * r.query_bytes, prepared.get());
      scorer.score(prepared.get(), nodes.data(), nodes.size(), std::numeric_limits<float>::infinity(), distance.data());
      Best best(std::min(r.k, std::max<size_t>(1, n_nodes)));
      for (size_t i = 0; i < nodes.size(); ++i) {
        const Row row = rows.first_passing(nodes[i], r.filter);
        if (row != kNone) best.offer({distance[i], nodes[i], rows.id(row)});
      }
      write_answer(rows, r, q, best);
    }
  }, poll);
  return compared;
}

}  // namespace nearly::lists
