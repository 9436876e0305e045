#include "base/rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nearly {

void Rows::link(Row row, int64_t id, Row node, Row from) {
  *ids_->as<int64_t>(row) = id;
  Row* next = next_->as<Row>(row);
  Row* first = first_->as<Row>(node);
  Row* last = last_->as<Row>(node);
  const auto store = [](Row* word, Row value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); };
  if (*first == kNone) {
    store(next, kNone);
    store(first, row);
    *last = row;
  } else if (this->id(*last) <= id) {  // equal: the row is exchanged for that one
    store(next, kNone);
    store(next_->as<Row>(*last), row);
    *last = row;
  } else if (id < this->id(*first)) {
    store(next, *first);
    store(first, row);
  } else {  // rare: an id between those that hang here already
    Row at = from == kNone ? *first : from;
    while (this->next(at) != kNone && this->id(this->next(at)) < id) at = this->next(at);
    store(next, this->next(at));
    store(next_->as<Row>(at), row);
  }
}

void Rows::link(const std::vector<Link>& links) {
  const Link* before = nullptr;  // linked last
  for (const Link& each : links) {
    const bool after = before && before->node == each.node && before->id < each.id;
    link(each.row, each.id, each.node, after ? before->row : kNone);
    before = &each;
  }
}

void Rows::unlink(const std::vector<Link>& links) {
  std::vector<uint64_t> pairs;  // node, row
  for (const Link& each : links) pairs.push_back(static_cast<uint64_t>(each.node) << 32 | each.row);
  std::sort(pairs.begin(), pairs.end());
  for (size_t i = 0, n = pairs.size(); i < n;) {
    const auto node = static_cast<Row>(pairs[i] >> 32);
    size_t end = i + 1;
    while (end < n && pairs[end] >> 32 == node) ++end;
    Row before = kNone;
    for (size_t left = end - i, at = first(node); left > 0 && at != kNone;) {
      const Row row = static_cast<Row>(at), after = next(row);
      const uint64_t pair = static_cast<uint64_t>(node) << 32 | row;
      if (std::binary_search(pairs.begin() + static_cast<ptrdiff_t>(i), pairs.begin() + static_cast<ptrdiff_t>(end), pair)) {
        __atomic_store_n(before == kNone ? first_->as<Row>(node) : next_->as<Row>(before), after, __ATOMIC_RELEASE);
        if (*last_->as<Row>(node) == row) *last_->as<Row>(node) = before;
        --left;  // the row keeps its own link: a reader that stands on it walks on
      } else {
        before = row;
      }
      at = after;
    }
    i = end;
  }
}

void Rows::prepare(std::vector<Link> come, std::vector<Link> go, const Poll& poll) {
  size_t n_nodes = least_nodes_.load();
  for (const Link& link : come) n_nodes = std::max<size_t>(n_nodes, link.node + size_t{1});
  exchanges_.push_back(std::make_unique<Exchange>(std::move(come), std::move(go)));
  Exchange& exchange = *exchanges_.back();
  exchange_.store(&exchange);
  try {
    readers_->wait(poll);
  } catch (...) {
    exchange_.store(nullptr);
    throw;
  }
  exchanges_.erase(exchanges_.begin(), exchanges_.end() - 1);
  least_nodes_.store(n_nodes);
  link(exchange.come);
}

void Rows::exchange() {
  std::atomic<uint64_t>& last = exchanges_.back()->last;
  if (!exchanging() || last.load() != ~uint64_t{0}) return;  // done already
  last.store(readers_->epoch());
  readers_->move_on({});  // the half to come is empty: `prepare` has waited for it
}

void Rows::call_off() {
  unlink(exchanges_.back()->come);
  exchange_.store(nullptr);
}

void Rows::settle() {
  if (!exchanging()) return;
  const Exchange& exchange = *exchanges_.back();
  readers_->drain(exchange.last.load(), {});
  unlink(exchange.go);
  exchange_.store(nullptr);
}

namespace {

// By (distance, place). Few are sorted by counting who is before whom: no branch to guess.
void sort_by_distance(Found* found, size_t n) {
  constexpr size_t kFew = 64;
  if (n > kFew) {
    std::sort(found, found + n, nearer);
    return;
  }
  float distance[kFew];
  Found sorted[kFew];
  for (size_t i = 0; i < n; ++i) distance[i] = found[i].distance;
  for (size_t i = 0; i < n; ++i) {
    uint32_t rank = 0;
    for (size_t j = 0; j < i; ++j) rank += distance[j] <= distance[i];
    for (size_t j = i + 1; j < n; ++j) rank += distance[j] < distance[i];
    sorted[rank] = found[i];
  }
  std::copy(sorted, sorted + n, found);
}

}  // namespace

size_t emit(const Rows& rows, Filter filter, Found* found, size_t n, size_t k, int64_t* ids, float* distances) {
  for (size_t i = 0; i < n; ++i)  // sums that overflowed are far away; a sort must not meet them
    if (std::isnan(found[i].distance)) found[i].distance = std::numeric_limits<float>::infinity();
  sort_by_distance(found, n);
  size_t out = 0;
  for (size_t i = 0; i < n && out < k;) {
    // Nodes at one distance share a rank: their rows are merged by id.
    size_t end = i + 1;
    while (end < n && found[end].distance == found[i].distance) ++end;
    const size_t start = out;
    for (size_t j = i; j < end; ++j) {
      size_t taken = 0;
      for (Row row = rows.first(found[j].node); row != kNone && taken < k; row = rows.next(row)) {
        if (!filter.passes(row)) continue;
        const int64_t id = rows.id(row);
        ++taken;
        size_t at = out;
        if (out < k)
          ++out;
        else if (id > ids[k - 1])
          break;
        else
          at = k - 1;
        while (at > start && ids[at - 1] > id) ids[at] = ids[at - 1], --at;
        ids[at] = id;
      }
    }
    std::fill(distances + start, distances + out, found[i].distance);
    i = end;
  }
  std::fill(ids + out, ids + k, int64_t{-1});
  std::fill(distances + out, distances + k, std::numeric_limits<float>::infinity());
  return out;
}

}  // namespace nearly
