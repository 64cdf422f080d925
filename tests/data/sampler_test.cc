#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/permutation.h"

namespace trireme {
namespace {
using testing::ElementsAre;

using Order = GlobalBatchSampler::Options::Order;

// Classes of the given sizes, each in two ranges that interleave with the other classes'.
std::vector<ShapeClass> make_classes(const std::vector<int64_t>& sizes) {
  std::vector<ShapeClass> classes;
  int64_t first = 0;
  for (size_t c = 0; c < sizes.size(); ++c) {
    classes.push_back({.shape = {4, 8, 8 * (static_cast<int64_t>(c) + 1)},
                       .ranges = {{first, sizes[c] / 2}},
                       .num_samples = sizes[c]});
    first += sizes[c] / 2;
  }
  for (size_t c = 0; c < sizes.size(); ++c) {
    const int64_t rest = sizes[c] - sizes[c] / 2;
    classes[c].ranges.push_back({first, rest});
    first += rest;
  }
  return classes;
}

GlobalBatchSampler make_sampler(const std::vector<int64_t>& sizes, int64_t global_batch,
                                Order order = Order::kShuffled, double validation_fraction = 0.0) {
  const auto classes = make_classes(sizes);
  return {classes,
          Split(classes, validation_fraction, 42),
          {.seed = 42, .global_batch = global_batch, .order = order}};
}

TEST(PermutationTest, VisitsEveryIndexOnce) {
  for (const int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 10, 100, 257, 1000, 4096}) {
    const Permutation permutation(n, 42, 3, 1);
    std::vector<bool> seen(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t j = permutation(i);
      ASSERT_TRUE(j >= 0 && j < n) << n;
      ASSERT_FALSE(seen[static_cast<size_t>(j)]) << n;
      seen[static_cast<size_t>(j)] = true;
    }
  }
}

TEST(PermutationTest, DependsOnSeedEpochAndStream) {
  const auto table = [](uint64_t seed, uint64_t epoch, uint32_t stream) {
    std::vector<int64_t> values;
    for (int64_t i = 0; i < 50; ++i) values.push_back(Permutation(50, seed, epoch, stream)(i));
    return values;
  };
  const std::set<std::vector<int64_t>> tables = {table(1, 0, 0), table(2, 0, 0), table(1, 1, 0),
                                                 table(1, 0, 1)};
  EXPECT_EQ(tables.size(), 4U);
  EXPECT_EQ(table(1, 0, 0), table(1, 0, 0));
}

TEST(PermutationTest, EveryIndexGoesEverywhereEquallyOften) {
  constexpr int64_t kSize = 11;
  constexpr int kTrials = 11000;
  std::vector<std::vector<int>> counts(kSize, std::vector<int>(kSize, 0));
  for (int trial = 0; trial < kTrials; ++trial) {
    const Permutation permutation(kSize, 7, static_cast<uint64_t>(trial), 0);
    for (int64_t i = 0; i < kSize; ++i) {
      ++counts[static_cast<size_t>(i)][static_cast<size_t>(permutation(i))];
    }
  }
  const double expected = static_cast<double>(kTrials) / kSize;
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
  }
}

TEST(PermutationTest, NeighboursAreTornApart) {
  const Permutation permutation(1'000'000, 1, 0, 0);
  double sum = 0.0;
  for (int64_t i = 0; i < 10000; ++i) {
    sum += std::abs(static_cast<double>(permutation(i + 1) - permutation(i)));
  }
  EXPECT_NEAR(sum / 10000, 1e6 / 3, 1e4);  // The mean distance of two uniform points.
}

TEST(PermutationTest, WorksAtTheLargestSize) {
  const int64_t n = int64_t{1} << 40;
  const Permutation permutation(n, 42, 0, 0);
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t j = permutation(n - 1 - i);
    EXPECT_TRUE(j >= 0 && j < n);
    seen.insert(j);
  }
  EXPECT_EQ(seen.size(), 1000U);
}

TEST(SplitTest, ValidationAndTrainingTogetherAreEverySampleOnce) {
  for (const double fraction : {0.0, 0.01, 0.1, 0.34, 0.5, 0.77, 0.98}) {
    const auto classes = make_classes({37, 1, 60, 2});
    const Split split(classes, fraction, 42);
    EXPECT_EQ(split.num_validation(), static_cast<int64_t>(std::ceil(fraction * 100))) << fraction;
    std::vector<int64_t> all;
    for (size_t c = 0; c < classes.size(); ++c) {
      std::vector<int64_t> training;
      for (int64_t k = 0; k < split.num_training(c); ++k) {
        training.push_back(split.training_sample(c, k));
      }
      EXPECT_TRUE(std::ranges::is_sorted(training));
      all.insert(all.end(), training.begin(), training.end());
      for (int64_t k = 0; k < split.num_validation(c); ++k) {
        all.push_back(split.validation_sample(c, k));
      }
    }
    std::ranges::sort(all);
    std::vector<int64_t> expected(100);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected) << fraction;
  }
}

TEST(SplitTest, DependsOnTheSeed) {
  const auto classes = make_classes({1000});
  const Split one(classes, 0.1, 1);
  const Split two(classes, 0.1, 2);
  int num_equal = 0;
  for (int64_t k = 0; k < 100; ++k) {
    num_equal += one.validation_sample(0, k) == two.validation_sample(0, k) ? 1 : 0;
  }
  EXPECT_LT(num_equal, 30);  // 10 expected: strata of ten.
}

TEST(SplitTest, NothingLeftToTrainOnIsAUsageError) {
  EXPECT_THROW(Split(make_classes({3}), 0.7, 42), UsageError);
}

TEST(GlobalBatchSamplerTest, EachEpochVisitsEverySampleOnce) {
  const auto sampler = make_sampler({37}, 10);
  std::vector<std::vector<int64_t>> epochs(10);
  for (int64_t step = 1; step <= 37; ++step) {  // 370 samples: ten epochs.
    for (const SampleDraw& draw : sampler.draws(step, 0, 10)) {
      epochs.at(static_cast<size_t>(draw.epoch)).push_back(draw.sample);
    }
  }
  std::vector<int64_t> expected(37);
  std::iota(expected.begin(), expected.end(), 0);
  for (auto& epoch : epochs) {
    EXPECT_NE(epoch, expected);
    std::ranges::sort(epoch);
    EXPECT_EQ(epoch, expected);
  }
}

TEST(GlobalBatchSamplerTest, WithoutShufflingSamplesComeByIndex) {
  const auto sampler = make_sampler({5}, 3, Order::kByIndex);
  std::vector<int64_t> order;
  std::vector<int64_t> epochs;
  for (int64_t step = 1; step <= 3; ++step) {
    for (const SampleDraw& draw : sampler.draws(step, 0, 3)) {
      order.push_back(draw.sample);
      epochs.push_back(draw.epoch);
    }
  }
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4, 0, 1, 2, 3));
  EXPECT_THAT(epochs, ElementsAre(0, 0, 0, 0, 0, 1, 1, 1, 1));
}

TEST(GlobalBatchSamplerTest, ABatchLargerThanTheDataRunsOverEpochs) {
  const auto sampler = make_sampler({3}, 8, Order::kByIndex);
  std::vector<int64_t> epochs;
  for (const SampleDraw& draw : sampler.draws(2, 0, 8)) epochs.push_back(draw.epoch);
  EXPECT_THAT(epochs, ElementsAre(2, 3, 3, 3, 4, 4, 4, 5));
}

TEST(GlobalBatchSamplerTest, PartsOfABatchAreThoseOfTheWhole) {
  const auto sampler = make_sampler({20, 33}, 12);
  for (int64_t step = 1; step <= 20; ++step) {
    const auto whole = sampler.draws(step, 0, 12);
    for (int64_t first = 0; first < 12; first += 4) {
      const auto part = sampler.draws(step, first, 4);
      for (size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(part[i].sample, whole[static_cast<size_t>(first) + i].sample);
      }
    }
  }
}

// The definition: all batches, sorted by due time (k + 1) B / N_c, ties by class.
TEST(GlobalBatchSamplerTest, StepsTakeClassesByDueTime) {
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{10, 20, 30}, {7, 1, 13, 7}, {5, 5}, {1, 100}, {64}}) {
    const auto sampler = make_sampler(sizes, 4);
    struct Batch {
      int64_t batch;
      size_t class_index;
    };
    std::vector<Batch> batches;
    for (size_t c = 0; c < sizes.size(); ++c) {
      for (int64_t k = 0; k < 2 * sizes[c]; ++k) batches.push_back({k, c});
    }
    std::ranges::sort(batches, [&](const Batch& a, const Batch& b) {
      const int64_t due_a = (a.batch + 1) * sizes[b.class_index];
      const int64_t due_b = (b.batch + 1) * sizes[a.class_index];
      return due_a != due_b ? due_a < due_b : a.class_index < b.class_index;
    });
    for (size_t i = 0; i < batches.size(); ++i) {
      const auto place = sampler.place(static_cast<int64_t>(i) + 1);
      ASSERT_EQ(place.class_index, batches[i].class_index) << "step " << i + 1;
      ASSERT_EQ(static_cast<int64_t>(place.first), 4 * batches[i].batch) << "step " << i + 1;
      EXPECT_EQ(sampler.shape(static_cast<int64_t>(i) + 1).width,
                8 * (static_cast<int64_t>(batches[i].class_index) + 1));
    }
  }
}

// The same definition where the batch grows: within a phase, batches of what each class has left,
// by the time at which they end.
TEST(GlobalBatchSamplerTest, AGrowingBatchTakesClassesByDueTime) {
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{10, 20, 30}, {7, 1, 13, 7}, {5, 5}, {1, 100}, {64}, {3, 200, 5}}) {
    const BatchSchedule schedule(4, {{12, 5}, {40, 16}, {41, 33}, {400, 64}});
    const auto classes = make_classes(sizes);
    const GlobalBatchSampler sampler(classes, Split(classes),
                                     {.seed = 42, .global_batch = schedule});
    std::vector<int64_t> consumed(sizes.size(), 0);
    for (int64_t step = 1; step <= 60; ++step) {
      const int64_t batch = schedule.global_batch(step);
      size_t next = 0;
      for (size_t c = 1; c < sizes.size(); ++c) {
        if ((consumed[c] + batch) * sizes[next] < (consumed[next] + batch) * sizes[c]) next = c;
      }
      const auto place = sampler.place(step);
      ASSERT_EQ(place.class_index, next) << "step " << step;
      ASSERT_EQ(static_cast<int64_t>(place.first), consumed[next]) << "step " << step;
      EXPECT_EQ(static_cast<int64_t>(sampler.draws(step, 0, batch).size()), batch);
      consumed[next] += batch;
    }
  }
}

TEST(GlobalBatchSamplerTest, AGrowingBatchDrawsTheSamplesOfAConstantOne) {
  const auto classes = make_classes({23});
  const BatchSchedule schedule(2, {{10, 4}, {30, 16}});
  const GlobalBatchSampler growing(classes, Split(classes), {.seed = 7, .global_batch = schedule});
  const GlobalBatchSampler constant(classes, Split(classes), {.seed = 7, .global_batch = 1});
  int64_t position = 0;
  for (int64_t step = 1; step <= 14; ++step) {
    for (const SampleDraw& draw : growing.draws(step, 0, schedule.global_batch(step))) {
      const SampleDraw other = constant.draws(++position, 0, 1).front();
      ASSERT_EQ(draw.sample, other.sample);
      ASSERT_EQ(draw.epoch, other.epoch);
    }
  }
}

TEST(GlobalBatchSamplerTest, ClassesWithoutTrainingSamplesTakeNoPart) {
  const auto classes = make_classes({1, 1, 50});
  const Split split(classes, 0.95, 42);  // 50 of 52 validate.
  const GlobalBatchSampler sampler(classes, split, {.seed = 1, .global_batch = 2});
  EXPECT_EQ(sampler.num_training(), 2);
  for (int64_t step = 1; step <= 10; ++step) {
    EXPECT_GT(split.num_training(sampler.place(step).class_index), 0);
  }
}

TEST(GlobalBatchSamplerTest, ValidationSamplesAreNeverDrawn) {
  const auto classes = make_classes({40, 60});
  const Split split(classes, 0.2, 9);
  std::set<int64_t> validation;
  for (size_t c = 0; c < 2; ++c) {
    for (int64_t k = 0; k < split.num_validation(c); ++k) {
      validation.insert(split.validation_sample(c, k));
    }
  }
  EXPECT_EQ(validation.size(), 20U);
  const GlobalBatchSampler sampler(classes, split, {.seed = 9, .global_batch = 8});
  for (int64_t step = 1; step <= 30; ++step) {
    for (const SampleDraw& draw : sampler.draws(step, 0, 8)) {
      EXPECT_FALSE(validation.contains(draw.sample));
    }
  }
}

TEST(GlobalBatchSamplerTest, AFarStepOfAHugeDatasetIsAsQuickAsTheFirst) {
  const int64_t huge = int64_t{1} << 39;
  std::vector<ShapeClass> classes = {
      {.shape = {4, 8, 8}, .ranges = {{0, huge}}, .num_samples = huge},
      {.shape = {4, 8, 16}, .ranges = {{huge, huge}}, .num_samples = huge}};
  const GlobalBatchSampler sampler(classes, Split(classes, 0.001, 3),
                                   {.seed = 3, .global_batch = 4096});
  const auto draws = sampler.draws(1'000'000'000, 4000, 96);
  EXPECT_EQ(draws.size(), 96U);
  for (const SampleDraw& draw : draws) EXPECT_TRUE(draw.sample >= 0 && draw.sample < 2 * huge);
}

TEST(GlobalBatchSamplerTest, EpochsBeyondTheCounterAreRefused) {
  const auto sampler = make_sampler({1}, 1000);
  EXPECT_NO_THROW((void)sampler.draws(15000, 0, 1));
  EXPECT_THROW((void)sampler.draws(20000, 0, 1), UsageError);
}

TEST(WriteOrderTest, PrintsStepPositionShardEpochSample) {
  const auto sampler = make_sampler({3}, 4, Order::kByIndex);
  std::ostringstream out;
  write_order(out, sampler, 1, 2, 2);
  EXPECT_EQ(out.str(),
            "1\t0\t0\t0\t0\n1\t1\t0\t0\t1\n1\t2\t1\t0\t2\n1\t3\t1\t1\t0\n"
            "2\t0\t0\t1\t1\n2\t1\t0\t1\t2\n2\t2\t1\t2\t0\n2\t3\t1\t2\t1\n");
}
}  // namespace
}  // namespace trireme
