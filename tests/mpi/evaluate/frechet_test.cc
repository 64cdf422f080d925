#include "trainer/evaluate/frechet.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/mpi/world.h"
#include "trainer/evaluate/collect.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using test::world;

at::Tensor features(int64_t rows, int64_t columns, double phase) {
  const at::Tensor places = torch::arange(rows * columns, torch::kDouble).view({rows, columns});
  return torch::sin(places * places * 0.37 + phase).to(torch::kFloat);
}

TEST(FeatureStatisticsTest, AreThoseOfTheWholeAtAnyNumberOfRanks) {
  const at::Tensor x = features(2500, 300, 0.0);  // Several blocks of rows and of columns.
  const FeatureStatistics found = feature_statistics(world(), x);
  const at::Tensor mean = x.to(torch::kDouble).mean(0);
  const at::Tensor centred = x.to(torch::kDouble) - mean;
  EXPECT_TRUE(torch::allclose(found.mean, mean, 1e-12, 1e-12));
  EXPECT_TRUE(torch::allclose(found.covariance, centred.t().mm(centred) / 2499, 1e-10, 1e-12));
}

TEST(FrechetDistanceTest, OfDiagonalNormalsHasAClosedForm) {
  const auto normal = [](std::vector<double> mean, std::vector<double> variance) {
    return FeatureStatistics{.mean = torch::tensor(mean, torch::kDouble),
                             .covariance = torch::diag(torch::tensor(variance, torch::kDouble))};
  };
  const auto a = normal({0, 1, 2}, {1, 4, 9});
  const auto b = normal({3, 1, 0}, {4, 4, 1});
  // |m|^2 = 9 + 4, and (s - t)^2 of the standard deviations: 1 + 0 + 4.
  EXPECT_NEAR(frechet_distance(world(), a, b), 18.0, 1e-9);
  EXPECT_NEAR(frechet_distance(world(), a, a), 0.0, 1e-9);
}

TEST(FrechetDistanceTest, OfFewRowsIsThatOfTheirStatistics) {
  const at::Tensor few = features(12, 20, 0.0);
  const auto reference = feature_statistics(world(), features(50, 20, 2.0) * 1.5);
  const double whole = frechet_distance(world(), feature_statistics(world(), few), reference);
  EXPECT_NEAR(frechet_distance(world(), few, reference), whole, 1e-6 * whole);
}

TEST(KernelDistanceTest, IsTheUnbiasedEstimate) {
  const at::Tensor a = features(7, 5, 0.0);
  const at::Tensor b = features(9, 5, 1.0) + 0.5;
  const auto kernel = [](const at::Tensor& x, const at::Tensor& y) {
    return std::pow((x.to(torch::kDouble) * y.to(torch::kDouble)).sum().item<double>() / 5 + 1, 3);
  };
  double expected = 0;
  for (int64_t i = 0; i < 7; ++i) {
    for (int64_t j = 0; j < 7; ++j) expected += i == j ? 0 : kernel(a[i], a[j]) / (7 * 6);
    for (int64_t j = 0; j < 9; ++j) expected -= 2 * kernel(a[i], b[j]) / (7 * 9);
  }
  for (int64_t i = 0; i < 9; ++i) {
    for (int64_t j = 0; j < 9; ++j) expected += i == j ? 0 : kernel(b[i], b[j]) / (9 * 8);
  }
  EXPECT_NEAR(kernel_distance(world(), a, b), expected, 1e-9 * std::abs(expected));
}

TEST(KernelDistanceTest, OfLargeSetsIsAMeanOverBlocks) {
  // Equal rows: every kernel value is the same, so the distance is 0 whatever the blocks.
  const at::Tensor a = torch::ones({2100, 3});
  EXPECT_NEAR(kernel_distance(world(), a, torch::ones({1500, 3})), 0.0, 1e-9);
}

TEST(CollectRowsTest, GivesEveryRankAllRows) {
  at::Tensor rows = torch::zeros({11, 3});
  for_own_groups(world(), 11, 2, [&](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) rows[i] = static_cast<float>(i) + 0.1F;
  });
  collect_rows(world(), rows);
  for (int64_t i = 0; i < 11; ++i) {
    EXPECT_EQ(rows[i][2].item<float>(), static_cast<float>(i) + 0.1F) << "rank " << world().rank();
  }
}
}  // namespace
}  // namespace trireme
