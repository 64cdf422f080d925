#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// Small-sample statistics of studies. Pure functions, any thread.

struct Interval {
  double low = 0.0;
  double high = 0.0;
};

[[nodiscard]] double mean_of(std::span<const double> values);  // REQUIRES: not empty.
// With n - 1 in the denominator; 0 for fewer than two values.
[[nodiscard]] double standard_deviation_of(std::span<const double> values);
// Linear between order statistics (type 7 of Hyndman and Fan, 1996). REQUIRES: not empty.
[[nodiscard]] double quantile_of(std::span<const double> values, double probability);

// The value below which Student's t with `degrees` >= 1 degrees of freedom lies with `probability`
// in (0, 1); by bisection of the closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4).
[[nodiscard]] double student_t_quantile(double probability, int64_t degrees);

// Mean with its 95 % interval by Student's t; the interval is infinite for fewer than two values.
struct MeanInterval {
  double mean = 0.0;
  Interval interval;
};
[[nodiscard]] MeanInterval mean_with_interval(std::span<const double> values);

// y = intercept + slope x by least squares, with the slope's 95 % interval by Student's t on n - 2
// degrees of freedom (infinite for two points). REQUIRES: two points of different x.
struct Line {
  double intercept = 0.0;
  double slope = 0.0;
  Interval slope_interval;
};
[[nodiscard]] Line fit_line(std::span<const double> x, std::span<const double> y);

// Random numbers for resampling: Philox4x32-10 under the key (`seed`, 0x5afe), counters counted up
// from 0, so that a bootstrap gives the same interval everywhere. Not thread-safe.
class ResamplingRandom {
 public:
  explicit ResamplingRandom(uint64_t seed) noexcept : seed_(seed) {}
  [[nodiscard]] uint32_t word() noexcept;
  [[nodiscard]] size_t index(size_t count) noexcept;  // Uniform in [0, count). REQUIRES: count > 0.
  [[nodiscard]] double normal() noexcept;

 private:
  uint64_t seed_;
  uint64_t next_block_ = 0;
  std::array<uint32_t, 4> words_ = {};
  size_t num_left_ = 0;
};
}  // namespace trireme
