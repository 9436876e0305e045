#include "quant/packed.hpp"

#include <cstring>
#include <limits>

namespace nearly::quant {

void unpack_unit(const uint8_t* in, int bits, uint8_t* x) {
  if (bits == 8) return static_cast<void>(std::memcpy(x, in, 64));
  std::memset(x, 0, 64);
  if (bits & 4) {
    for (size_t i = 0; i < 32; ++i) x[i] = in[i] & 15, x[32 + i] = in[i] >> 4;
    in += 32;
  }
  if (bits & 2) {
    for (size_t part = 0; part < 4; ++part)
      for (size_t i = 0; i < 16; ++i)
        x[part * 16 + i] = static_cast<uint8_t>(x[part * 16 + i] << 2 | (in[i] >> (2 * part) & 3));
    in += 16;
  }
  if (bits & 1)
    for (size_t i = 0; i < 8; ++i) {
      const uint64_t places = in[i] * 0x0101010101010101ull & 0x8040201008040201ull;  // byte j holds bit j, in its place
      const uint64_t ones = (places + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull;
      uint64_t eight;
      std::memcpy(&eight, x + i * 8, 8);
      eight = (eight << 1 & 0xfefefefefefefefeull) | ones;
      std::memcpy(x + i * 8, &eight, 8);
    }
}

Digits split(const int16_t* whole, size_t n, bool fine, int8_t* coarse, int8_t* low) {
  Digits made{0, 0};  // |whole| is below 4096, and there are at most 2^15 + 64
  for (size_t j = 0; j < n; ++j) {
    const int high = fine ? (whole[j] + 32) >> 6 : whole[j];
    coarse[j] = static_cast<int8_t>(high);
    made.coarse_sum += high;
    made.sum += whole[j];
  }
  if (fine)
    for (size_t j = 0; j < n; ++j) low[j] = static_cast<int8_t>(whole[j] - coarse[j] * 64);
  return made;
}

double dot(const float* a, const float* b, size_t n) {
  double part[4] = {};
  for (size_t j = 0; j < n; j += 4)
    for (size_t i = 0; i < 4; ++i) part[i] += static_cast<double>(a[j + i]) * b[j + i];
  return (part[0] + part[2]) + (part[1] + part[3]);
}

float to_float(double x) {
  constexpr double kMost = std::numeric_limits<float>::max();
  return static_cast<float>(x < kMost ? x : kMost);
}

}  // namespace nearly::quant
