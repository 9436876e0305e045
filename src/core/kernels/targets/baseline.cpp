// The baseline target: 16-byte vectors.
#define NEARLY_TARGET baseline
#define NEARLY_BYTES 16
#include "kernels/body/all.inl.hpp"
