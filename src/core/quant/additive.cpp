#include "quant/additive.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace nearly::quant {

// A distance is constant + step * sum (+ the row's square) of bytes, or constant + sum of floats.
struct alignas(64) Additive::Query {
  float constant, step;
  const float* floats() const { return reinterpret_cast<const float*>(this + 1); }
  float* floats() { return reinterpret_cast<float*>(this + 1); }
  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(this + 1); }
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(this + 1); }
};

namespace {

constexpr size_t kLookupBlock = 32;  // rows of a fastscan
constexpr size_t kSingly = 4;        // rows below which lookups one by one are faster

size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }

// The nearest whole number of one from 0 to 2^22, as std::nearbyint, which is a call for each.
float to_whole(float value) { return value + 0x1.8p23f - 0x1.8p23f; }

// Where a row's square stands: after the codes.
size_t square_place(const AdditiveSpec& spec) { return rounded(spec.bits == 8 ? spec.books : (spec.books + 1) / 2, 4); }

}  // namespace

Additive::Additive(AdditiveSpec spec, std::shared_ptr<Table> rows)
    : Coded(spec.dim, spec.input_dim(), std::move(rows)), spec_(std::move(spec)) {
  square_ = square_place(spec_);
  code_bytes_ = spec_.bits == 8 ? spec_.books : rounded((spec_.books + 1) / 2, 8);
  centers_.reserve(spec_.books);
  for (size_t b = 0; b < spec_.books; ++b) centers_.emplace_back(codeword(b, 0), spec_.words(), spec_.width());
  if (spec_.bits == 4 && !spec_.residual) pair_up();
}

size_t Additive::row_bytes(const AdditiveSpec& spec) {
  return rounded(square_place(spec) + (spec.remembers_square() ? 4 : 0), spec.bits == 8 ? 4 : 8);
}

// -- coding ------------------------------------------------------------------------------------------------------------

void Additive::put(uint8_t* row, size_t book, size_t code) const {
  if (spec_.bits == 8)
    row[book] = static_cast<uint8_t>(code);
  else
    row[book / 2] = static_cast<uint8_t>(row[book / 2] | code << (book % 2 * 4));
}

void Additive::fill(size_t first, const float* vectors, size_t n) {
  constexpr size_t kBlock = 64;
  const size_t inputs = spec_.input_dim();
  std::vector<float> residuals(std::min(n, kBlock) * inputs), decoded(inputs);
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t block = std::min(kBlock, n - i);
    for (size_t r = 0; r < block; ++r) {
      float* residual = residuals.data() + r * inputs;
      spec_.row(vectors + (i + r) * spec_.dim, residual);
      for (size_t j = 0; j < inputs; ++j) residual[j] -= spec_.center[j];
    }
    uint8_t* rows = rows_->row(first + i);
    std::memset(rows, 0, block * rows_->stride());
    spec_.residual ? code_residual(residuals.data(), block, rows) : code_product(residuals.data(), block, rows);
    if (!spec_.remembers_square()) continue;
    for (size_t r = 0; r < block; ++r, rows += rows_->stride()) {
      decode(static_cast<Row>(first + i + r), decoded.data());
      double square = 0;
      for (size_t j = 0; j < inputs; ++j) {
        const double d = static_cast<double>(decoded[j]) - spec_.center[j];
        square += d * d;
      }
      const auto kept = static_cast<float>(std::min<double>(square, std::numeric_limits<float>::max()));
      std::memcpy(rows + square_, &kept, sizeof kept);
    }
  }
}

void Additive::code_product(const float* residuals, size_t n, uint8_t* rows) const {
  const size_t inputs = spec_.input_dim(), width = spec_.width();
  std::vector<uint32_t> label(n);
  std::vector<float> value(n), part;
  for (size_t b = 0; b < spec_.books; ++b) {
    const float* from = residuals + spec_.first(b);
    size_t stride = inputs;
    if (spec_.count(b) < width) {  // the next coordinate is another codebook's
      part.assign(n * width, 0.0f);
      for (size_t r = 0; r < n; ++r) std::copy_n(from + r * inputs, spec_.count(b), part.data() + r * width);
      from = part.data();
      stride = width;
    }
    centers_[b].nearest(from, stride, n, label.data(), value.data());
    for (size_t r = 0; r < n; ++r) put(rows + r * rows_->stride(), b, label[r]);
  }
}

namespace {

// What is left of a row after some codewords, which one was the last, and of which partial code it is a continuation.
struct Partial {
  float square;
  uint32_t parent, word;
};

// Keeps the `most` smallest in order; of equals the first that came.
void keep(std::vector<Partial>& best, size_t most, Partial fresh) {
  if (best.size() == most && !(fresh.square < best.back().square)) return;
  if (best.size() == most) best.pop_back();
  const auto place = std::upper_bound(best.begin(), best.end(), fresh,
                                      [](const Partial& a, const Partial& b) { return a.square < b.square; });
  best.insert(place, fresh);
}

}  // namespace

// Beam search: of all codewords of the next codebook after all partial codes, the best few are kept (Babenko & Lempitsky,
// "Additive quantization", CVPR 2014, section 3.2, in the order of the codebooks).
void Additive::code_residual(const float* residuals, size_t n, uint8_t* rows) const {
  const size_t inputs = spec_.input_dim(), words = spec_.words(), beam = spec_.beam, panel = centers_[0].width();
  std::vector<float> left(n * inputs), next, tile;
  std::copy_n(residuals, n * inputs, left.data());
  std::vector<float> squares(n);
  for (size_t r = 0; r < n; ++r) squares[r] = sum_of_squares(residuals + r * inputs, inputs);
  std::vector<size_t> begin(n + 1);  // a row's partial codes are [begin[r], begin[r + 1])
  for (size_t r = 0; r <= n; ++r) begin[r] = r;
  std::vector<std::vector<Partial>> chosen(spec_.books);  // all rows' of each level, for the way back
  std::vector<std::vector<Partial>> best(n);
  for (size_t b = 0; b < spec_.books; ++b) {
    const size_t partials = begin[n];
    tile.resize(partials * panel);
    for (auto& of_row : best) of_row.clear();
    for (size_t p = 0; p < centers_[b].panels(); ++p) {
      centers_[b].multiply(left.data(), partials, p, tile.data());
      const size_t used = std::min(panel, words - p * panel);
      for (size_t r = 0; r < n; ++r)
        for (size_t i = begin[r]; i < begin[r + 1]; ++i)
          for (size_t c = 0; c < used; ++c) {
            const size_t word = p * panel + c;
            const float square = squares[i] + 2.0f * (centers_[b].half(word) - tile[i * panel + c]);
            if (best[r].size() < beam || square < best[r].back().square)
              keep(best[r], beam, {square, static_cast<uint32_t>(i), static_cast<uint32_t>(word)});
          }
    }
    next.clear();
    std::vector<float> next_squares;
    for (size_t r = 0; r < n; ++r) {
      begin[r] = chosen[b].size();
      for (const Partial& kept : best[r]) {
        const float* from = left.data() + kept.parent * inputs;
        const float* word = codeword(b, kept.word);
        for (size_t j = 0; j < inputs; ++j) next.push_back(from[j] - word[j]);
        next_squares.push_back(sum_of_squares(next.data() + next.size() - inputs, inputs));
        chosen[b].push_back(kept);
      }
    }
    begin[n] = chosen[b].size();
    left.swap(next);
    squares.swap(next_squares);
  }
  for (size_t r = 0; r < n; ++r) {
    size_t at = begin[r];
    for (size_t i = at; i < begin[r + 1]; ++i)
      if (squares[i] < squares[at]) at = i;
    for (size_t b = spec_.books; b-- > 0; at = chosen[b][at].parent) put(rows + r * rows_->stride(), b, chosen[b][at].word);
  }
}

void Additive::decode(Row row, float* out) const {
  const uint8_t* at = rows_->row(row);
  std::copy(spec_.center.begin(), spec_.center.end(), out);
  for (size_t b = 0; b < spec_.books; ++b) {
    const float* word = codeword(b, code(at, b));
    float* part = out + spec_.first(b);
    for (size_t j = 0; j < spec_.count(b); ++j) part[j] += word[j];
  }
}

// -- tables ------------------------------------------------------------------------------------------------------------

size_t Additive::prepared_bytes() const {
  return sizeof(Query) + (spec_.bits == 8 ? spec_.books * 256 * 4 : rows_->stride() * 2 * 16) + 64;
}

// out[book * words + word]: what the codeword adds to a distance, for a query about the center (squared distances) or as it
// is (products).
void Additive::lookups(const float* query, float* out) const {
  const size_t words = spec_.words(), width = spec_.width();
  std::vector<float> part(width), tile(centers_[0].width());
  const float weight = spec_.product() ? -1.0f : -2.0f;
  const bool with_square = !spec_.product() && !spec_.residual;
  for (size_t b = 0; b < spec_.books; ++b, out += words) {
    std::fill(part.begin(), part.end(), 0.0f);
    std::copy_n(query + spec_.first(b), spec_.count(b), part.data());
    for (size_t p = 0; p < centers_[b].panels(); ++p) {
      centers_[b].multiply(part.data(), 1, p, tile.data());
      const size_t from = p * tile.size(), used = std::min(tile.size(), words - from);
      for (size_t c = 0; c < used; ++c)
        out[from + c] = weight * tile[c] + (with_square ? 2.0f * centers_[b].half(from + c) : 0.0f);
    }
  }
}

// A coded row is made of codewords, so what all others add to its distance is known beforehand: building a graph makes
// tables of rows far more often than of queries.
void Additive::pair_up() {
  const size_t words = spec_.words();
  std::vector<float> query(spec_.input_dim()), whole(spec_.books * words);
  pairs_.resize(spec_.books * words * words);
  for (size_t word = 0; word < words; ++word) {
    for (size_t b = 0; b < spec_.books; ++b)
      for (size_t j = 0; j < spec_.count(b); ++j)
        query[spec_.first(b) + j] = codeword(b, word)[j] + (spec_.product() ? spec_.center[spec_.first(b) + j] : 0.0f);
    lookups(query.data(), whole.data());
    for (size_t b = 0; b < spec_.books; ++b)
      std::copy_n(whole.data() + b * words, words, pairs_.data() + (b * words + word) * words);
  }
}

// row: the codes that the query was decoded from, or null.
void Additive::tables(const float* query, const uint8_t* row, float constant, void* prepared) const {
  Query* made = static_cast<Query*>(prepared);
  made->constant = constant;
  made->step = 0.0f;
  if (spec_.bits == 8) {
    lookups(query, made->floats());
    return;
  }
  const size_t words = spec_.words(), groups = rows_->stride() * 2;
  std::vector<float> whole(spec_.books * words), least(spec_.books);
  if (row && !pairs_.empty())
    for (size_t b = 0; b < spec_.books; ++b)
      std::copy_n(pairs_.data() + (b * words + code(row, b)) * words, words, whole.data() + b * words);
  else
    lookups(query, whole.data());
  float range = 0.0f;
  for (size_t b = 0; b < spec_.books; ++b) {
    const float* of_book = whole.data() + b * words;
    float low = of_book[0], high = of_book[0];
    for (size_t c = 1; c < words; ++c) low = std::min(low, of_book[c]), high = std::max(high, of_book[c]);
    least[b] = low;
    range = std::max(range, high - low);
    made->constant += low;
  }
  made->step = range / 255.0f;
  const float inverse = range > 0 ? 255.0f / range : 0.0f;
  std::memset(made->bytes(), 0, groups * 16);
  for (size_t b = 0; b < spec_.books; ++b)
    for (size_t c = 0; c < words; ++c)
      made->bytes()[b * 16 + c] =
          static_cast<uint8_t>(std::min(255.0f, to_whole((whole[b * words + c] - least[b]) * inverse)));
}

// form: input_dim floats, which may change; row: as in `tables`.
void Additive::prepare_form(float* form, const uint8_t* row, void* prepared) const {
  const size_t inputs = spec_.input_dim();
  float constant = 0.0f;
  if (spec_.product()) {
    for (size_t j = 0; j < inputs; ++j) constant -= form[j] * spec_.center[j];
  } else {
    for (size_t j = 0; j < inputs; ++j) form[j] -= spec_.center[j];
    constant = sum_of_squares(form, inputs);
  }
  tables(form, row, constant, prepared);
}

void Additive::prepare(const void* query, void* prepared) const {
  std::vector<float> form(spec_.input_dim());
  spec_.query(static_cast<const float*>(query), form.data());
  prepare_form(form.data(), nullptr, prepared);
}

void Additive::prepare_row(Row row, void* prepared) const {
  std::vector<float> form(spec_.input_dim());
  decode(row, form.data());
  prepare_form(form.data(), rows_->row(row), prepared);
}

// -- comparing ---------------------------------------------------------------------------------------------------------

// Four rows at a time, so that their sums do not wait for each other; each is one sum in the order of codebooks.
void Additive::sum_floats(const float* tables, const uint8_t* base, const Row* rows, size_t n, float* out) const {
  const size_t stride = rows_->stride(), books = spec_.books;
  const auto row = [&](size_t i) { return base + (rows ? rows[i] : i) * stride; };
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const uint8_t *a = row(i), *b = row(i + 1), *c = row(i + 2), *d = row(i + 3);
    float sum_a = 0, sum_b = 0, sum_c = 0, sum_d = 0;
    const float* table = tables;
    for (size_t m = 0; m < books; ++m, table += 256) {
      sum_a += table[a[m]];
      sum_b += table[b[m]];
      sum_c += table[c[m]];
      sum_d += table[d[m]];
    }
    out[i] = sum_a, out[i + 1] = sum_b, out[i + 2] = sum_c, out[i + 3] = sum_d;
  }
  for (; i < n; ++i) {
    const uint8_t* a = row(i);
    float sum = 0;
    for (size_t m = 0; m < books; ++m) sum += tables[m * 256 + a[m]];
    out[i] = sum;
  }
}

void Additive::sum_bytes(const Query& query, const uint8_t* base, const Row* rows, size_t n, float* out) const {
  const size_t stride = rows_->stride(), bytes = code_bytes_;
  size_t i = 0;
  alignas(64) uint8_t packed[kernels::kLookups * 16];
  for (; i + kSingly <= n; i += kLookupBlock) {
    const size_t block = std::min(kLookupBlock, n - i);
    uint32_t sum[kLookupBlock] = {};
    for (size_t at = 0; at < bytes; at += kernels::kLookups / 2) {
      const size_t part = std::min(bytes - at, kernels::kLookups / 2);
      const uint8_t* from = base + at + (rows ? 0 : i * stride);
      uint16_t some[kLookupBlock];
      kernels::active().interleave(from, stride, rows ? rows + i : nullptr, block, part, packed);
      kernels::active().fastscan(query.bytes() + at * 32, packed, part * 2, 1, some);
      for (size_t r = 0; r < kLookupBlock; ++r) sum[r] += some[r];
    }
    for (size_t r = 0; r < block; ++r) out[i + r] = static_cast<float>(sum[r]) * query.step;
  }
  for (; i < n; ++i) {
    const uint8_t* row = base + (rows ? rows[i] : i) * stride;
    uint32_t sum = 0;
    for (size_t j = 0; j < bytes; ++j) {
      const uint8_t* table = query.bytes() + j * 32;
      sum += static_cast<uint32_t>(table[row[j] & 15] + table[16 + (row[j] >> 4)]);
    }
    out[i] = static_cast<float>(sum) * query.step;
  }
}

void Additive::score_rows(const Query& query, const uint8_t* base, const Row* rows, size_t n, float* out) const {
  if (spec_.bits == 8)
    sum_floats(query.floats(), base, rows, n, out);
  else
    sum_bytes(query, base, rows, n, out);
  for (size_t i = 0; i < n; ++i) out[i] += query.constant;
  if (!spec_.remembers_square()) return;
  for (size_t i = 0; i < n; ++i) {
    float square;
    std::memcpy(&square, base + (rows ? rows[i] : i) * rows_->stride() + square_, sizeof square);
    out[i] += square;
  }
}

void Additive::score(const void* prepared, const Row* rows, size_t n, float, float* out) const {
  score_rows(*static_cast<const Query*>(prepared), rows_->data(), rows, n, out);
}

void Additive::score_range(const void* prepared, Row first, size_t n, float* out) const {
  score_rows(*static_cast<const Query*>(prepared), rows_->row(first), nullptr, n, out);
}

}  // namespace nearly::quant
