#include "lists/blocks.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

#include "kernels/block.hpp"
#include "lists/best.hpp"

namespace nearly::lists {
namespace {

constexpr size_t kRowBlock = 48;      // rows decoded at a time: with a panel of queries they stay in the second cache
constexpr size_t kQueryGroup = 1024;  // queries that one task carries over all rows
constexpr size_t kSample = 256;       // rows whose mean is the center
// Vectors become whole numbers of about this length: a product of two fits 32 bits and each element 16.
constexpr double kReach = 32700;
// Lengths that are resolved: no float overflows on the way. Shorter vectors are rounded as coarsely as those, longer ones
// are left to the scorer.
constexpr double kShortest = 1e-13, kLongest = 1e15;
constexpr double kMargin = 1e-6;      // of a bound in floats: more than the three roundings of its use

float round_down(double x) { return static_cast<float>(x - std::fabs(x) * kMargin); }
float round_up(double x) { return static_cast<float>(x + std::fabs(x) * kMargin); }

// A vector v, about the center, as whole numbers V: v = step * V + an error no longer than step * the spread of its kind.
struct Whole {
  double squared, step;  // |v|^2
  float inverse;         // 1 / step
  bool usable;           // else V is 0
};

// How vectors become whole numbers.
class Rounding {
 public:
  Rounding(size_t dim, size_t even) : center_(dim, 0.0f), even_(even), spread_(0.51 * std::sqrt(static_cast<double>(dim))) {}
  // The mean of n vectors; 0 when it is not a number or far away.
  void center_on(const float* vectors, size_t n) {
    std::vector<double> sums(center_.size(), 0.0);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < sums.size(); ++j) sums[j] += vectors[i * sums.size() + j];
    for (size_t j = 0; j < sums.size(); ++j) {
      const double mean = n ? sums[j] / static_cast<double>(n) : 0.0;
      center_[j] = std::fabs(mean) <= kLongest ? static_cast<float>(mean) : 0.0f;
    }
  }
  Whole round(float* v, int16_t* out) const {
    const kernels::Table& kernel = kernels::active();
    Whole w{};
    w.squared = kernel.center(v, center_.data(), center_.size());
    const double length = std::sqrt(w.squared);
    w.usable = length <= kLongest;
    w.inverse = static_cast<float>(kReach / std::max(kShortest, length));
    w.step = 1.0 / static_cast<double>(w.inverse);
    if (w.usable)
      kernel.round16(v, center_.size(), w.inverse, out);
    else
      std::fill_n(out, even_, int16_t{0});
    return w;
  }
  // |<q, x> - step_q * step_x * <Q, X>| <= step_q * step_x * error(): Cauchy-Schwarz, as |v| <= kReach * step; and what a
  // product may lose as a float.
  double error() const { return spread_ * (2.001 * kReach + spread_) + 256; }

 private:
  std::vector<float> center_;
  size_t even_;
  double spread_;
};

// The k smallest numbers met.
class Smallest {
 public:
  explicit Smallest(size_t k) : numbers_(k, std::numeric_limits<float>::infinity()) {}
  float largest() const { return numbers_.back(); }
  void insert(float x) {
    float before = -std::numeric_limits<float>::infinity();
    for (float& number : numbers_) {
      const float old = number;
      number = std::max(before, std::min(old, x));
      before = old;
    }
  }

 private:
  std::vector<float> numbers_;  // ascending
};

// A query's candidates: nodes whose value may still be among the k smallest.
class Candidates {
 public:
  Candidates(size_t k, const Whole& query, double slack) : step(query.step), inverse(query.inverse), slack(slack), smallest_(k), full_(4 * k + 64), largest_(8 * k + 4096) {
    nodes_.reserve(full_);
  }
  double step;
  float inverse;
  double slack;

  // No value above it is among the k smallest.
  float limit() const { return limit_; }
  // A node whose value lies between these; either may be not a number.
  void offer(Row node, float least, float most) {
    if (!(least <= limit_)) return;
    nodes_.push_back({least, node});
    if (most < limit_) {
      smallest_.insert(most);
      limit_ = smallest_.largest();
    }
    if (nodes_.size() >= full_) shrink();
  }
  void shrink() {
    std::erase_if(nodes_, [&](const Entry& e) { return e.least > limit_; });
    full_ = std::max(full_, 2 * nodes_.size());
    if (nodes_.size() > largest_) give_up();
  }
  // Products cannot tell the rows apart, or overflow.
  void give_up() {
    limit_ = -std::numeric_limits<float>::infinity();
    nodes_ = {};
  }
  bool gave_up() const { return limit_ == -std::numeric_limits<float>::infinity(); }
  template <typename Take> void for_each(Take take) const {
    for (const Entry& e : nodes_) take(e.node);
  }

 private:
  struct Entry {
    float least;
    Row node;
  };
  float limit_ = std::numeric_limits<float>::infinity();
  Smallest smallest_;
  size_t full_, largest_;
  std::vector<Entry> nodes_;
};

// Values to compare: |q - x|^2 - |q|^2 about the center, under ip -2 <q, x>; `rounding` of it are the scorer's, twice.
class Screen {
 public:
  Screen(const Dense& dense, const Rows& rows, size_t n_nodes, const Request& r, size_t begin, size_t end)
      : dense_(dense), rows_(rows), n_nodes_(n_nodes), r_(r), n_(end - begin), even_(kernels::PackedWhole::even(dense.dim)),
        rounding_(dense.dim, even_), rounded_(static_cast<double>(dense.dim + 16) * 0x1p-22),
        packed_(take_queries(begin)), error_(rounding_.error() + (is_dot() ? rounded_ * kReach * kReach : 0.0)) {}

  // Looks at all rows; returns how many.
  size_t run(const Poll& poll);
  Candidates& candidates(size_t q) { return candidates_[q]; }

 private:
  struct Row16 {
    Whole whole;
    double reach, slack;
  };
  bool is_dot() const { return r_.metric == Metric::kDot; }
  kernels::PackedWhole take_queries(size_t begin);
  void center();
  void take_rows(const Row* nodes, size_t count);
  void multiply(const Row* nodes, size_t count);
  void set_floor(size_t q);

  const Dense& dense_;
  const Rows& rows_;
  size_t n_nodes_;
  const Request& r_;
  size_t n_, even_;
  Rounding rounding_;
  double rounded_;
  std::vector<Candidates> candidates_;
  std::vector<float> floors_, scales_;
  Row16 block_[kRowBlock];
  std::vector<float> floats_;
  std::vector<int16_t> whole_;
  std::vector<int32_t> tile_;
  float row_floors_[kRowBlock], row_scales_[kRowBlock];
  kernels::PackedWhole packed_;  // last: made from what stands above
  double error_;
};

void Screen::center() {
  Row nodes[kSample];
  size_t count = 0;
  for (size_t i = 0; i < std::min(kSample, n_nodes_) && !is_dot(); ++i) {
    nodes[count] = static_cast<Row>(i * n_nodes_ / std::min(kSample, n_nodes_));
    count += rows_.first_passing(nodes[count], r_.filter) != kNone;
  }
  floats_.resize(std::max<size_t>(kSample, kRowBlock) * dense_.dim);
  dense_.decode(nodes, count, floats_.data());
  rounding_.center_on(floats_.data(), count);
}

kernels::PackedWhole Screen::take_queries(size_t begin) {
  center();
  std::vector<int16_t> whole(n_ * even_, 0);
  std::vector<float> query(dense_.dim);
  candidates_.reserve(n_);
  const size_t k = std::min(r_.k, std::max<size_t>(1, n_nodes_));
  for (size_t q = 0; q < n_; ++q) {
    dense_.decode_query(r_.queries + (begin + q) * r_.query_bytes, query.data());
    const bool zero = std::all_of(query.begin(), query.end(), [](float x) { return x == 0; });
    const Whole w = rounding_.round(query.data(), whole.data() + q * even_);
    const double tiny = static_cast<double>(dense_.dim + 16) * 0x1p-146;
    candidates_.emplace_back(k, w, (is_dot() ? 0.0 : rounded_ * w.squared) + tiny);
    if (!w.usable || (zero && r_.metric == Metric::kCosine)) candidates_[q].give_up();
  }
  kernels::PackedWhole packed(whole.data(), n_, dense_.dim);
  floors_.assign(packed.panels() * packed.width(), std::numeric_limits<float>::infinity());
  scales_.assign(floors_.size(), 0.0f);
  whole_.assign(kRowBlock * even_, 0);
  tile_.resize(kRowBlock * packed.width());
  for (size_t q = 0; q < n_; ++q) {
    scales_[q] = candidates_[q].inverse;
    set_floor(q);
  }
  return packed;
}

// A row may be among the nearest where <q, x> + error >= (reach - row's slack) / 2 - (limit + query's slack) / 2.
void Screen::set_floor(size_t q) {
  const Candidates& c = candidates_[q];
  floors_[q] = c.gave_up() ? std::numeric_limits<float>::infinity() : round_down((c.limit() + c.slack) * -0.5 * c.inverse);
}

void Screen::take_rows(const Row* nodes, size_t count) {
  dense_.decode(nodes, count, floats_.data());
  for (size_t i = 0; i < count; ++i) {
    float* v = floats_.data() + i * dense_.dim;
    // The zero vector has no direction: cosine puts it at 1, where |q - x|^2 would be 1 and not 2.
    const bool zero = r_.metric == Metric::kCosine && std::all_of(v, v + dense_.dim, [](float x) { return x == 0; });
    Row16& row = block_[i];
    row.whole = rounding_.round(v, whole_.data() + i * even_);
    row.reach = is_dot() ? 0.0 : row.whole.squared + (zero ? 1.0 : 0.0);
    row.slack = is_dot() ? 0.0 : rounded_ * row.whole.squared + (zero ? kMargin : 0.0);
    row_scales_[i] = row.whole.inverse;
    row_floors_[i] = round_down((row.reach - row.slack) * 0.5 * row.whole.inverse);
    if (row.whole.usable) continue;
    for (size_t q = 0; q < n_; ++q) candidates_[q].give_up(), set_floor(q);
  }
}

void Screen::multiply(const Row* nodes, size_t count) {
  const size_t width = packed_.width();
  kernels::Reached reached[kRowBlock + 1];
  for (size_t p = 0; p < packed_.panels(); ++p) {
    packed_.multiply(whole_.data(), count, p, tile_.data());
    const size_t hits = kernels::active().reaching(tile_.data(), count, row_floors_, row_scales_, floors_.data() + p * width,
                                                   scales_.data() + p * width, static_cast<float>(error_), reached);
    for (size_t h = 0; h < hits; ++h) {
      const Row16& row = block_[reached[h].row];
      const int32_t* products = tile_.data() + reached[h].row * width;
      for (uint32_t columns = reached[h].columns; columns; columns &= columns - 1) {
        const auto c = static_cast<size_t>(std::countr_zero(columns));
        const size_t q = p * width + c;
        if (q >= n_) break;
        Candidates& query = candidates_[q];
        const double unit = 2 * query.step * row.whole.step, product = products[c];
        query.offer(nodes[reached[h].row], round_down(row.reach - unit * (product + error_) - row.slack - query.slack),
                    round_up(row.reach - unit * (product - error_) + row.slack + query.slack));
        set_floor(q);
      }
    }
  }
}

size_t Screen::run(const Poll& poll) {
  size_t compared = 0;
  Row met[kRowBlock];
  for (size_t at = 0; at < n_nodes_;) {
    // Rows come before vectors: a place that is free now may be filled while we look.
    size_t count = 0;
    for (; at < n_nodes_ && count < kRowBlock; ++at) {
      met[count] = static_cast<Row>(at);  // kept or overwritten by the next
      count += rows_.first_passing(static_cast<Row>(at), r_.filter) != kNone;
    }
    take_rows(met, count);
    multiply(met, count);
    compared += count * n_;
    poll_if_due(poll);
  }
  return compared;
}

}  // namespace

uint64_t scan_blocks(const Scorer& scorer, const Dense& dense, const Rows& rows, size_t n_nodes, const Request& r,
                     const Poll& poll) {
  const size_t threads = r.threads ? r.threads : default_threads();
  const size_t per_task = std::min(kQueryGroup, std::max<size_t>(16, (r.n + threads - 1) / threads));
  std::atomic<uint64_t> compared{0};
  parallel_for(r.n, per_task, threads, [&](size_t begin, size_t end) {
    const Readers::Reading reading(*rows.readers());
    rows.check(reading);
    Screen screen(dense, rows, n_nodes, r, begin, end);
    compared += screen.run(poll);
    const Buffer prepared = buffer(scorer.prepared_bytes());
    std::vector<Row> nodes;
    std::vector<float> distance;
    for (size_t q = begin; q < end; ++q) {
      Candidates& candidates = screen.candidates(q - begin);
      candidates.shrink();
      if (candidates.gave_up()) {
        compared += scan_one(scorer, rows, n_nodes, nullptr, r, q, prepared.get(), poll);
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
