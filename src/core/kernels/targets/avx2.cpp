// The avx2 target: 32-byte vectors.
#define NEARLY_TARGET avx2
#define NEARLY_BYTES 32
#include "kernels/body/all.inl.hpp"
