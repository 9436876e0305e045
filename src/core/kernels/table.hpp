// What every CPU target offers: one table of plain functions, chosen once at load.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nearly::kernels {

// How stored elements look.
enum Element : int { kFloat32 = 0, kFloat16, kBfloat16, kInt8, kUint8, kElements };

// Distances from one query to n rows: row i starts at base + rows[i] * stride, or base + i * stride when rows is null.
// Smaller is nearer; `size` counts elements (floats, or bytes for bits).
using Rows = void (*)(const void* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t size,
                      float* out);
// Integer products of one query with n rows of `size` bytes of codes.
using Dots = void (*)(const int8_t* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n,
                      size_t size, int32_t* out);

// Distances by shared steps: (constant + header) + factor * product, the header being the last float of a row.
using Codes = void (*)(const int8_t* query, const uint8_t* base, size_t stride, const uint32_t* rows, size_t n,
                       float constant, float factor, float* out);
// A pool after a merge, and the first place that a new candidate took (the old size when none did).
struct Merged {
  size_t size, first;
};
// A row of a tile, and a bit for each of its columns.
struct Reached {
  uint32_t row, columns;
};
// How 64 magnitudes are cut into codes, and what sums over them weigh: body/sweep.inl.hpp.
struct Grid {
  float share;            // of the scale
  float top;              // the largest code without its sign
  float product, square;  // weights
  float fine, inverse;    // whole numbers of 15 bits to a magnitude of 1; 1 / fine
};
constexpr size_t kTries = 5;      // scales at once, at most
constexpr size_t kMostSpans = 32;  // of one pass over a column
constexpr size_t kLookups = 256;  // groups of a fastscan: 257 * 255 is the largest 16-bit number, and 257 is odd

struct Table {
  const char* name;
  // Float queries against any element.
  Rows l2_squared[kElements];  // |q - x|^2
  Rows dot[kElements];         // -<q, x>
  Rows cosine[kElements];      // 1 - cos; q is unit or zero, rows are followed by 1 / norm as a float
  Rows l1[kElements];          // sum |q - x|
  // Integer queries of the stored type: the same sums, exact before the last rounding to float.
  Rows l2_squared_u8, dot_u8, l2_squared_i8, dot_i8;
  Rows hamming, jaccard;
  // Codes are unsigned bytes, queries lie in [-64, 63]: 2 * 255 * 64 fits the 16-bit lanes of every target.
  Dots dots8;
  // Two codes a byte: byte j holds dimension j (low nibble) and dimension j + size (high); the query holds 2 * size.
  Dots dots4;
  Codes codes8, codes4;
  // As codes8, of n rows and the first `queries` of a panel, each with a constant and a factor: tile[i * panel + c], and in
  // bits of near[i] the queries of whose bounds it is not above. packed[(j / 4 * panel + c) * 4 + j % 4] is value j of query
  // c; `constants`, `factors` and `bounds` are whole panels. Rows that are not `headed` count 0 for the header.
  void (*code_panel)(const int8_t* packed, size_t queries, const float* constants, const float* factors, const float* bounds,
                     const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, bool headed, float* tile,
                     uint32_t* near);
  // out[j] = floor((codes[j] - 127) / 2), in [-64, 64]; returns the sum.
  int32_t (*halve)(const uint8_t* codes, size_t n, int8_t* out);
  // Codes of 1 to 8 bits at [bits - 1], in units of 64 dimensions and bits * 8 bytes (body/packed.inl.hpp has the layout);
  // `size` counts units, the query holds 64 values in [-64, 63] for each.
  Dots packed[8];
  // out[b * 32 + v] = sum over groups g of tables[g * 16 + code of vector v of block b in group g]. A block is `groups` x
  // 16 bytes; byte i of a group holds the 4-bit codes of vector i (low) and of vector 16 + i (high). `groups` is even
  // (pad with tables of zeros) and at most kLookups, so that no 16-bit sum overflows.
  void (*fastscan)(const uint8_t* tables, const uint8_t* packed, size_t groups, size_t blocks, uint16_t* out);
  // Such a block of n rows, at least one and at most 32; what is past them repeats the last. `bytes`, a multiple of 8, are
  // taken of each row; byte j holds groups 2j (low bits) and 2j + 1.
  void (*interleave)(const uint8_t* base, size_t stride, const uint32_t* rows, size_t n, size_t bytes, uint8_t* out);
  // Such blocks, each followed by 32 scales and 32 numbers to add: the distances base + add + scale * (step * sum + offset) of
  // n rows from `first` that are not above a bound, as candidates (below). `out` has n places.
  size_t (*scan_listed)(const uint8_t* tables, const uint8_t* blocks, size_t groups, uint32_t first, size_t n, float base,
                        float step, float offset, float bound, int64_t* out);
  // Products of the parts of z with the 16 codewords of each of at most kLookups books, and tables of bytes made of such:
  // body/listed.inl.hpp.
  void (*lookups)(const float* z, const float* codewords, size_t books, size_t width, float* out);
  float (*byte_tables)(const float* x, size_t books, uint8_t* out, float* least);
  // A rotation of n floats, a multiple of 64, by 4 * n random bits: round r uses the words from signs[r * n / 64].
  void (*rotate)(float* x, const uint64_t* signs, size_t n);
  // How well codes of one scale point in the direction of magnitudes, in units of 64 that have a grid each, and the sums
  // that lead to a scale: body/sweep.inl.hpp.
  void (*sweep)(const float* a, size_t units, float scale, const Grid* grids, float* out);
  void (*fine_steps)(const float* a, size_t units, const Grid* grids, int16_t* out);
  void (*tries)(const int16_t* a, size_t units, const float* scales, size_t n, const Grid* grids, float* out);
  void (*clipped)(const int16_t* a, size_t units, float inverse, const Grid* grids, float* out);
  // Squares of units of 64 whole numbers; and magnitudes times a scale, of n that are a multiple of 64.
  void (*unit_squares)(const int32_t* x, size_t units, float* out);
  void (*whole_magnitudes)(const int32_t* x, size_t n, float scale, float* out);
  void (*magnitudes)(const float* x, size_t n, float scale, float* out);
  // Units of 64 magnitudes as codes of `lead` leading and `further` bits, in the layout of `packed`: body/packed.inl.hpp.
  void (*cut)(const float* a, const int32_t* signs, size_t units, float scale, int lead, int further, uint8_t* leading,
              uint8_t* rest);
  // out[i * out_stride + j] = <row i, column j> for n rows of `dim` floats and one packed panel of `panel` columns.
  void (*products)(const float* rows, size_t row_stride, size_t n, const float* packed, size_t dim, float* out,
                   size_t out_stride);
  size_t panel;  // columns of a panel, at most 32; packed[j * panel + c] is element j of column c
  // out[j] = from[j] * scale, from stored elements.
  void (*widen[kElements])(const void* from, size_t n, float scale, float* out);
  // x -= center; returns |x|^2.
  double (*center)(float* x, const float* center, size_t n);
  // out[j] = round(x[j] * scale), ties to even, where that fits 16 bits.
  void (*round16)(const float* x, size_t n, float scale, int16_t* out);
  // out[i * out_stride + c] = <row i, column c> of n rows and one panel of whole numbers, where no sum leaves 32 bits. dim
  // is even: packed[(j * panel + 2 * c) + j % 2] for even j and the next is element j of column c.
  void (*whole_products)(const int16_t* rows, size_t row_stride, size_t n, const int16_t* packed, size_t dim, int32_t* out,
                         size_t out_stride);
  // The same for groups of 16 rows, by tiles of bytes: body/tiles.inl.hpp. Null where a target has none.
  void (*tile_rows)(const int16_t* rows, size_t row_stride, size_t groups, size_t dim, uint8_t* out);
  void (*tile_products)(const uint8_t* rows, size_t groups, const uint8_t* columns, size_t tiles, size_t blocks,
                        int32_t* out, size_t out_stride);
  // Rows of such a tile where a product is not below row_floor[i] * scale[c] + floor[c] * row_scale[i] - allowance, in
  // floats (what is not a number is not below), and in which columns. `out` has n + 1 places; returns how many it took.
  size_t (*reaching)(const int32_t* tile, size_t n, const float* row_floor, const float* row_scale, const float* floor,
                     const float* scale, float allowance, Reached* out);
  // The nearest of `panels` packed panels of centers, for n rows: label[i] is the first center c with the largest
  // value[i] = <row i, c> - halves[c], halves being |c|^2 / 2, and infinite past the last center.
  void (*nearest)(const float* rows, size_t row_stride, size_t n, const float* packed, const float* halves, size_t dim,
                  size_t panels, uint32_t* label, float* value);
  // out[q][p] = sum_j queries[q][j] * matrix[j][p]; matrix holds pairs of dimensions beside each other:
  // matrix[(j / 2 * outputs + p) * 2 + j % 2]. dim even, outputs a multiple of 16.
  void (*project)(const int16_t* queries, size_t n, const int8_t* matrix, size_t dim, size_t outputs, int32_t* out);
  // Symmetric rounding to whole numbers in [-limit, limit]; returns the step, 0 when all are 0. Equal on every target.
  float (*quantize16)(const float* x, size_t n, float limit, int16_t* out);
  float (*quantize8)(const float* x, size_t n, float limit, int8_t* out);
  float (*largest)(const float* x, size_t n);  // max |x[j]|
  // True when all values are whole numbers in [low, high], at most 2^20 in size; `out` then holds them as bytes.
  bool (*whole_bytes)(const float* x, size_t n, float low, float high, uint8_t* out);
  // Bookkeeping of walks. A candidate is a word: its distance's bits in the order of floats, then twice the row.
  // The neighbors of a list (ended by all ones) that are below n_nodes and whose bit was not set; sets it. `out` has
  // degree + 1 places.
  size_t (*unseen)(const uint32_t* list, size_t degree, size_t n_nodes, uint64_t* seen, uint32_t* out);
  // The same of those below n_bits whose bit is set among `bits`; others are left as they are.
  size_t (*unseen_passing)(const uint32_t* list, size_t degree, size_t n_bits, uint64_t* seen, const uint64_t* bits,
                           uint32_t* out);
  // Candidates of the distances that are not above a bound. `out` has n + 1 places.
  size_t (*within)(const float* distances, const uint32_t* rows, size_t n, float bound, int64_t* out);
  // Merges n candidates, all different, into a sorted pool of at most `width`, whose memory has places for that many.
  Merged (*merge)(int64_t* pool, size_t size, size_t width, const int64_t* fresh, size_t n);
  // First of n rows with a NaN or an infinity, or n. Element: float32, float16 or bfloat16.
  size_t (*first_nonfinite[3])(const uint8_t* base, size_t stride, size_t n, size_t size);
  // Bit i of `bits` is set where value i lies in one of the spans from low[s] to high[s], at least one and at most
  // kMostSpans; bits past n are zero. Whole numbers of 1, 2, 4 and 8 bytes at [log2 of that], with their sign or without;
  // spans do not go beyond what such a number holds.
  void (*whole_in_spans[4])(const void* values, size_t n, const int64_t* low, const int64_t* high, size_t n_spans,
                            uint64_t* bits);
  void (*float_in_spans)(const void* values, size_t n, const double* low, const double* high, size_t n_spans,
                         uint64_t* bits);
};

// The table in use: the best this machine has, or what NEARLY_SIMD names.
const Table& active();
// False when the name is unknown or the machine cannot run it.
bool use(const char* name);
// Names this machine can run, best first, then nullptr.
const char* const* available();
// True when the machine multiplies tiles of bytes (AMX) and lets this process do it.
bool tiles_granted();

}  // namespace nearly::kernels
