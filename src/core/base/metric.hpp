// The metrics the core knows, and the unit in which it compares: l2 squared, all others as people see them.
#pragma once
#include <cmath>

namespace nearly {

enum class Metric : int { kL2 = 0, kCosine, kDot, kL1, kHamming, kJaccard };

inline bool is_bits(Metric m) { return m == Metric::kHamming || m == Metric::kJaccard; }

// From the unit of comparison to the distance people see, and back.
inline float seen(Metric m, float d) { return m == Metric::kL2 ? std::sqrt(d > 0 ? d : 0) : d; }
inline float compared(Metric m, float d) { return m == Metric::kL2 ? d * d : d; }

}  // namespace nearly
