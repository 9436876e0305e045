// What codes of 1 to 8 bits a dimension have in common: their layout in rows, and queries as whole numbers against them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nearly::quant {

constexpr size_t kUnit = 64;      // dimensions that are packed together, into bits * 8 bytes
constexpr int kLead = 4;          // leading bits: what kernels of packed codes take fastest
constexpr float kCoarseLimit = 63;  // of a query's digits, see kernels::Table::packed
constexpr int kFineBits = 5;      // from which on seven bits for the query would be the larger error
constexpr float kFineLimit = 63 * 64 + 31;  // of two digits

// Steps of the best uniform quantizers of a normal variable, for 1 to 12 bits, and their mean squared errors (Max, IRE
// Transactions 1960; those of more than 32 levels computed likewise).
constexpr float kSteps[13] = {0,         1.596f,    0.9957f,   0.586f,    0.3352f,   0.1881f,  0.1041f,
                              0.05687f,  0.03076f,  0.0165f,   0.008785f, 0.00465f,  0.002448f};
constexpr float kErrors[13] = {1,         0.3634f,   0.1188f,   0.03744f,  0.01154f,  0.003495f, 0.00104f,
                               3.043e-4f, 8.769e-5f, 2.492e-5f, 6.997e-6f, 1.944e-6f, 5.355e-7f};

// 64 codes of `bits` bits, at most 8, from the layout of kernels::Table::packed.
void unpack_unit(const uint8_t* in, int bits, uint8_t* x);

// Half of the largest code: what is taken from a code to make it signed.
inline float half_of_codes(int bits) { return 0.5f * static_cast<float>((1 << bits) - 1); }

struct Digits {
  int32_t coarse_sum, sum;  // of the digits, and of the whole numbers
};
// n whole numbers as digits: themselves, or 64 * coarse + low where they are fine.
Digits split(const int16_t* whole, size_t n, bool fine, int8_t* coarse, int8_t* low);

// Exact but for the last bit; n is a multiple of 4.
double dot(const float* a, const float* b, size_t n);
// Numbers that overflowed on their way are as large as can be.
float to_float(double x);

}  // namespace nearly::quant
