#include "study/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "core/error.h"
#include "core/normal_quantile.h"
#include "core/philox.h"

namespace trireme {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUpperTail = 0.975;

// P(|T| <= t) for Student's t with an integer number of degrees of freedom.
double student_t_central(double t, int64_t degrees) {
  const double theta = std::atan(t / std::sqrt(static_cast<double>(degrees)));
  const double cosine = std::cos(theta);
  const bool is_odd = degrees % 2 == 1;
  double term = is_odd ? cosine : 1.0;
  double sum = degrees == 1 ? 0.0 : term;
  for (int64_t k = is_odd ? 3 : 2; k <= degrees - 2; k += 2) {
    term *= static_cast<double>(k - 1) / static_cast<double>(k) * cosine * cosine;
    sum += term;
  }
  if (is_odd) return 2.0 / std::numbers::pi * (theta + std::sin(theta) * sum);
  return std::sin(theta) * sum;
}

// The x at which the increasing `f` reaches `level`.
template <typename Function>
double bisect(Function f, double low, double high, double level) {
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = 0.5 * (low + high);
    (f(middle) < level ? low : high) = middle;
  }
  return 0.5 * (low + high);
}
}  // namespace

double mean_of(std::span<const double> values) {
  check(!values.empty(), "the mean of no values");
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_deviation_of(std::span<const double> values) {
  if (values.size() < 2) return 0.0;
  const double mean = mean_of(values);
  double sum = 0.0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double quantile_of(std::span<const double> values, double probability) {
  check(!values.empty(), "a quantile of no values");
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const double place = probability * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = place - static_cast<double>(below);
  // Equal neighbours first: infinity minus infinity is no number.
  if (sorted[below] == sorted[above] || share == 0.0) return sorted[below];
  return sorted[below] + share * (sorted[above] - sorted[below]);
}

double student_t_quantile(double probability, int64_t degrees) {
  check(degrees >= 1 && probability > 0.0 && probability < 1.0, "Student's t has a domain");
  if (degrees > 10000) return normal_quantile(probability);
  if (probability < 0.5) return -student_t_quantile(1.0 - probability, degrees);
  const auto distribution = [degrees](double t) { return student_t_central(t, degrees); };
  return bisect(distribution, 0.0, 1e6, 2.0 * probability - 1.0);
}

MeanInterval mean_with_interval(std::span<const double> values) {
  const double mean = mean_of(values);
  if (values.size() < 2) return {.mean = mean, .interval = {-kInfinity, kInfinity}};
  const auto count = static_cast<double>(values.size());
  const double half = student_t_quantile(kUpperTail, static_cast<int64_t>(values.size()) - 1) *
                      standard_deviation_of(values) / std::sqrt(count);
  return {.mean = mean, .interval = {mean - half, mean + half}};
}

Line fit_line(std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size() && x.size() >= 2, "a line needs two points");
  const double mean_x = mean_of(x);
  const double mean_y = mean_of(y);
  double sum_xx = 0.0;
  double sum_xy = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum_xx += (x[i] - mean_x) * (x[i] - mean_x);
    sum_xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  check(sum_xx > 0.0, "a line needs two different x");
  Line line;
  line.slope = sum_xy / sum_xx;
  line.intercept = mean_y - line.slope * mean_x;
  line.slope_interval = {-kInfinity, kInfinity};
  if (x.size() == 2) return line;
  double residuals = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double residual = y[i] - line.intercept - line.slope * x[i];
    residuals += residual * residual;
  }
  const auto degrees = static_cast<int64_t>(x.size()) - 2;
  const double half = student_t_quantile(kUpperTail, degrees) *
                      std::sqrt(residuals / static_cast<double>(degrees) / sum_xx);
  line.slope_interval = {line.slope - half, line.slope + half};
  return line;
}

uint32_t ResamplingRandom::word() noexcept {
  if (num_left_ == 0) {
    const std::array<uint32_t, 4> counter = {static_cast<uint32_t>(next_block_),
                                             static_cast<uint32_t>(next_block_ >> 32), 0, 0};
    words_ = philox4x32(counter, {static_cast<uint32_t>(seed_), 0x5afe});
    ++next_block_;
    num_left_ = words_.size();
  }
  return words_[--num_left_];
}

size_t ResamplingRandom::index(size_t count) noexcept {
  return static_cast<size_t>((static_cast<uint64_t>(word()) * count) >> 32);
}

double ResamplingRandom::normal() noexcept {
  const double radius = std::sqrt(-2.0 * std::log(uniform(word())));
  return radius * std::cos(2.0 * std::numbers::pi * uniform(word()));
}
}  // namespace trireme
