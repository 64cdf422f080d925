#include "data/training_samples.h"

#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {
// Three classes whose ranges alternate: 0 … 6 | 7 … 9 | 10 … 24 | 25 … 29 | 30 … 31.
std::vector<ShapeClass> make_classes() {
  return {{.shape = {4, 8, 8}, .ranges = {{0, 7}, {25, 5}}, .num_samples = 12},
          {.shape = {4, 8, 16}, .ranges = {{7, 3}, {30, 2}}, .num_samples = 5},
          {.shape = {4, 16, 8}, .ranges = {{10, 15}}, .num_samples = 15}};
}

TEST(SplitTest, CountsTrainingSamplesBelowAnIndex) {
  const auto classes = make_classes();
  for (const double fraction : {0.0, 0.1, 0.3, 0.7}) {
    const Split split(classes, fraction, 5);
    for (size_t c = 0; c < classes.size(); ++c) {
      std::set<int64_t> training;
      for (int64_t k = 0; k < split.num_training(c); ++k) {
        training.insert(split.training_sample(c, k));
      }
      for (int64_t sample = 0; sample <= 32; ++sample) {
        const auto expected = std::distance(training.begin(), training.lower_bound(sample));
        ASSERT_EQ(split.num_training_before(c, sample), expected)
            << "class " << c << ", sample " << sample << ", fraction " << fraction;
      }
    }
  }
}

TEST(TrainingSamplesTest, WithoutRepeatsAnEpochIsTheTrainingSamplesInOrder) {
  const auto classes = make_classes();
  const Split split(classes, 0.2, 1);
  const TrainingSamples samples(classes, split);
  for (size_t c = 0; c < classes.size(); ++c) {
    ASSERT_EQ(samples.num_draws(c), split.num_training(c));
    for (int64_t k = 0; k < samples.num_draws(c); ++k) {
      EXPECT_EQ(samples.draw(c, k, 3).sample, split.training_sample(c, k));
      EXPECT_EQ(samples.draw(c, k, 3).epoch, 3);
    }
  }
}

TEST(TrainingSamplesTest, RepeatedSamplesAreDrawnAnewEachTime) {
  const auto classes = make_classes();
  const Split split(classes, 0.2, 1);
  // Files 0 … 9, 10 … 27 and 28 … 31, of which the second cuts a range of the first class.
  const std::vector<SampleRepeats> repeats = {{0, 10, 3}, {10, 18, 1}, {28, 4, 2}};
  const TrainingSamples samples(classes, split, repeats);
  EXPECT_EQ(samples.max_times(), 3);
  std::map<int64_t, std::set<int64_t>> draws;  // By sample.
  int64_t total = 0;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    for (size_t c = 0; c < classes.size(); ++c) {
      total += samples.num_draws(c);
      for (int64_t k = 0; k < samples.num_draws(c); ++k) {
        const SampleDraw draw = samples.draw(c, k, epoch);
        EXPECT_TRUE(draws[draw.sample].insert(draw.epoch).second) << "drawn twice alike";
      }
    }
  }
  EXPECT_EQ(total, 2 * samples.num_draws());
  for (const auto& [sample, numbers] : draws) {
    const int64_t times = sample < 10 ? 3 : sample < 28 ? 1 : 2;
    EXPECT_EQ(static_cast<int64_t>(numbers.size()), 2 * times) << "sample " << sample;
    EXPECT_EQ(*numbers.rbegin(), 2 * times - 1) << "sample " << sample;
  }
}
}  // namespace
}  // namespace trireme
