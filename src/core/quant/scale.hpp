// The scale by which magnitudes become codes that point in their direction: what RaBitQ sweeps for, and what SAQ adjusts.
#pragma once
#include <vector>

#include "kernels/table.hpp"

namespace nearly::quant {

struct Fit {
  float scale = 0;
  float product = 0, square = 0;  // of codes with the magnitudes and themselves, as the grids weigh them
  float quality() const { return square > 0 ? product * product / square : 0; }
};

// The grid of 64 magnitudes as codes of so many bits, or of these without the last ones by the scale of all, and weights.
kernels::Grid grid(int bits, float product, float square, int left_out = 0);

// The codes of one scale. A grid for each 64 magnitudes.
Fit fit(const float* a, const std::vector<kernels::Grid>& grids, float scale);

// A scale whose codes point nearly where the magnitudes do, a few tenths of a percent of 1 - cos^2 from the best of all
// scales; `rounds` at most are for the scale that fits the codes of the scale before. Shares are 1, both weights are
// squares of steps, and magnitudes are in steps that suit them, so that scales are near 1.
Fit choose_scale(const float* a, const std::vector<kernels::Grid>& grids, int rounds);

}  // namespace nearly::quant
