#include "trainer/optim/exact_sum.h"

#include <cmath>

#include <gtest/gtest.h>

#include "trainer/torch_api.h"

namespace trireme {
namespace {

// Float gradients over the whole range of exponents.
at::Tensor wild_values(int64_t count) {
  const auto generator = at::detail::createCPUGenerator(3);
  const auto exponents = torch::rand({count}, generator) * 120.0 - 60.0;
  return torch::randn({count}, generator) * torch::exp2(exponents);
}

std::vector<FlatBucket> bucket_of(const at::Tensor& grads) {
  return {{.params = torch::zeros_like(grads), .grads = grads, .segments = {}}};
}

TEST(ExactSumTest, DoesNotDependOnOrderOrPartition) {
  const auto values = wild_values(5000).square().to(torch::kDouble);
  ExactSum forward;
  ExactSum backward;
  ExactSum parts[3];
  for (int64_t i = 0; i < values.numel(); ++i) {
    forward.add(values[i].item<double>());
    backward.add(values[values.numel() - 1 - i].item<double>());
    parts[i % 3].add(values[i].item<double>());
  }
  parts[0].add(parts[1]);
  parts[0].add(parts[2]);
  EXPECT_EQ(forward.digits(), backward.digits());
  EXPECT_EQ(forward.digits(), parts[0].digits());
  const double expected = values.sum().item<double>();
  EXPECT_NEAR(forward.value() / expected, 1.0, 1e-14);
}

TEST(ExactSumTest, KeepsWhatRoundingWouldLose) {
  ExactSum sum;
  sum.add(1e60);
  sum.add(1e-60);
  for (int i = 0; i < 3; ++i) sum.add(std::ldexp(1.0, -298));  // The square of the least float.
  ExactSum other;
  for (int i = 0; i < 3; ++i) other.add(std::ldexp(1.0, -298));
  other.add(1e60);
  other.add(1e-60);
  EXPECT_EQ(sum.digits(), other.digits());
  ExactSum without;
  without.add(1e60);
  EXPECT_NE(sum.digits(), without.digits());
}

TEST(ExactSumTest, TensorsGiveTheSameDigits) {
  const auto values = wild_values(700).square().to(torch::kDouble);
  ExactSum sum;
  for (int64_t i = 0; i < values.numel(); ++i) sum.add(values[i].item<double>());
  const at::Tensor digits = digits_of(values);
  for (int j = 0; j < kNumDigits; ++j) {
    EXPECT_EQ(digits[j].item<double>(), sum.digits()[static_cast<size_t>(j)]) << "digit " << j;
  }
  EXPECT_NEAR(value_of_digits(digits).item<double>() / sum.value(), 1.0, 1e-15);
}

TEST(ExactSumTest, ADigitIsTheSameWhereverAValueBegins) {
  for (int exponent = -370; exponent < 312; ++exponent) {
    const double value = std::ldexp(1.0 + 3e-10 + std::ldexp(1.0, -52), exponent);
    ExactSum sum;
    sum.add(value);
    const at::Tensor digits = digits_of(torch::full({1}, value, torch::kDouble));
    for (int j = 0; j < kNumDigits; ++j) {
      ASSERT_EQ(digits[j].item<double>(), sum.digits()[static_cast<size_t>(j)])
          << "2^" << exponent << ", digit " << j;
    }
  }
}

TEST(SquaresDigitsTest, RangesAddUpToTheWhole) {
  const auto buckets = bucket_of(wild_values(4096));
  const at::Tensor whole = squares_digits(buckets, {{0, 4096}});
  at::Tensor parts = torch::zeros_like(whole);
  for (const auto& range : {FlatRange{0, 256}, FlatRange{256, 1280}, FlatRange{1280, 4096}}) {
    parts += squares_digits(buckets, {range});
  }
  EXPECT_TRUE(torch::equal(whole, parts));
  EXPECT_EQ(value_of_digits(whole).item<double>(), sum_of_squares(buckets).item<double>());
  const double expected = buckets[0].grads.to(torch::kDouble).square().sum().item<double>();
  EXPECT_NEAR(sum_of_squares(buckets).item<double>() / expected, 1.0, 1e-14);
}

TEST(SquaresDigitsTest, WhatIsNotFiniteShows) {
  for (const float bad : {NAN, INFINITY}) {
    auto buckets = bucket_of(torch::ones({512}));
    buckets[0].grads[300] = bad;
    EXPECT_FALSE(std::isfinite(sum_of_squares(buckets).item<double>()));
  }
}
}  // namespace
}  // namespace trireme
