#include "bench/statistics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace trireme::bench {
namespace {
constexpr double kMiss = 0.05;  // Of the interval, both sides together.

// Probability that of n fair coins at most k show heads.
double binomial_at_most(int n, int k) {
  double term = std::pow(0.5, n);
  double sum = term;
  for (int i = 1; i <= k; ++i) {
    term *= static_cast<double>(n - i + 1) / i;
    sum += term;
  }
  return sum;
}
}  // namespace

Interval median_interval(std::vector<double> samples) {
  check(!samples.empty(), "a sample to take the median of");
  std::ranges::sort(samples);
  const auto n = static_cast<int>(samples.size());
  int cut = 0;  // Order statistics left out on each side.
  while (2 * binomial_at_most(n, cut) <= kMiss) ++cut;
  const auto lowest = static_cast<size_t>(std::max(0, cut - 1));
  const size_t middle = samples.size() / 2;
  const double median =
      n % 2 == 1 ? samples[middle] : 0.5 * (samples[middle - 1] + samples[middle]);
  return {.median = median, .low = samples[lowest], .high = samples[samples.size() - 1 - lowest]};
}

std::vector<double> ratios(const std::vector<double>& a, const std::vector<double>& b) {
  check(a.size() == b.size(), "as many samples of both");
  std::vector<double> result;
  for (size_t i = 0; i < a.size(); ++i) result.push_back(a[i] / b[i]);
  return result;
}
}  // namespace trireme::bench
