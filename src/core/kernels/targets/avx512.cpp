// The avx512 target: 64-byte vectors.
#define NEARLY_TARGET avx512
#define NEARLY_BYTES 64
#include "kernels/body/all.inl.hpp"
