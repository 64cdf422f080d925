#pragma once

namespace trireme {

// The inverse of the standard normal distribution function, to about 1e-16 relative (Wichura,
// "Algorithm AS 241", 1988). REQUIRES: 0 < p < 1.
[[nodiscard]] double normal_quantile(double p);
}  // namespace trireme
