#include "trainer/noise_scale.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace trireme {
namespace {

// Gradients of known mean and covariance: g = G + noise, |G|^2 = kSignal, tr(Sigma) = kNoise a
// sample.
constexpr int kDimensions = 400;
constexpr double kSignal = 4.0;
constexpr double kNoise = 200.0;

struct Sampled {
  double small_squares = 0.0;
  double large_squares = 0.0;
};

// Norms of `parts` batches of `small` samples and of the batch that they make up.
Sampled draw(std::mt19937_64& random, int parts, int small) {
  std::normal_distribution<double> normal(0.0, std::sqrt(kNoise / kDimensions / small));
  Sampled sampled;
  std::vector<double> mean(kDimensions, 0.0);
  for (int part = 0; part < parts; ++part) {
    for (double& value : mean) {
      const double g = std::sqrt(kSignal / kDimensions) + normal(random);
      value += g / parts;
      sampled.small_squares += g * g / parts;
    }
  }
  for (const double value : mean) sampled.large_squares += value * value;
  return sampled;
}

TEST(GradientNoiseScaleTest, FindsAKnownNoiseWithinFivePercent) {
  for (const int parts : {2, 8}) {
    std::mt19937_64 random(17);
    GradientNoiseScale scale;
    double error = 0.0;
    double mean = 0.0;
    constexpr int kSteps = 3000;
    constexpr int kWarm = 500;
    for (int step = 0; step < kSteps; ++step) {
      const Sampled sampled = draw(random, parts, 16);
      scale.add(GradientNoiseScale::estimate({.small_squares = sampled.small_squares,
                                              .small_batch = 16,
                                              .large_squares = sampled.large_squares,
                                              .large_batch = 16.0 * parts}));
      if (step >= kWarm) mean += *scale.value() / (kSteps - kWarm);
    }
    error = std::abs(mean / (kNoise / kSignal) - 1.0);
    EXPECT_LT(error, 0.05) << parts << " parts: " << mean;
    EXPECT_LT(std::abs(*scale.value() / (kNoise / kSignal) - 1.0), 0.25) << "one value, smoothed";
  }
}

TEST(GradientNoiseScaleTest, EstimatesAreUnbiased) {
  std::mt19937_64 random(5);
  double signal = 0.0;
  double noise = 0.0;
  constexpr int kSteps = 4000;
  for (int step = 0; step < kSteps; ++step) {
    const Sampled sampled = draw(random, 4, 8);
    const auto estimate = GradientNoiseScale::estimate({.small_squares = sampled.small_squares,
                                                        .small_batch = 8,
                                                        .large_squares = sampled.large_squares,
                                                        .large_batch = 32});
    signal += estimate.signal / kSteps;
    noise += estimate.noise / kSteps;
  }
  EXPECT_NEAR(signal, kSignal, 0.05 * kSignal);
  EXPECT_NEAR(noise, kNoise, 0.02 * kNoise);
}

TEST(GradientNoiseScaleTest, WhatIsNotFiniteIsLeftOut) {
  GradientNoiseScale scale;
  EXPECT_FALSE(scale.value());
  scale.add({.signal = 2.0, .noise = 10.0});
  scale.add({.signal = std::nan(""), .noise = 1.0});
  EXPECT_DOUBLE_EQ(*scale.value(), 5.0);
  GradientNoiseScale resumed;
  resumed.restore(scale.state());
  scale.add({.signal = 1.0, .noise = 3.0});
  resumed.add({.signal = 1.0, .noise = 3.0});
  EXPECT_EQ(*scale.value(), *resumed.value());
}
}  // namespace
}  // namespace trireme
