#pragma once
#include <vector>

namespace trireme::bench {

struct Interval {
  double median = 0.0;
  double low = 0.0;
  double high = 0.0;
};

// The median, and the narrowest symmetric interval of order statistics that covers it with 95 %
// confidence (binomial; no assumption on the distribution). Up to five samples do not suffice for
// that: then it is their range. REQUIRES: at least one sample.
[[nodiscard]] Interval median_interval(std::vector<double> samples);

// Sample by sample, a / b.
[[nodiscard]] std::vector<double> ratios(const std::vector<double>& a,
                                         const std::vector<double>& b);
}  // namespace trireme::bench
