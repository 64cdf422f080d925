#include "trainer/metric_watch.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace trireme {
namespace {
using Saves = MetricWatch::Saves;

class MetricWatchTest : public testing::Test {
 protected:
  // An evaluation after the next step.
  void evaluate(const std::string& name, double value) {
    ++state_.step;
    watch_.begin_step();
    watch_.note({{"val_samples", 9.0}, {name, value}});
  }
  Config config_;
  CheckpointState state_;
  MetricWatch watch_{config_, state_};
};

TEST_F(MetricWatchTest, StopsAfterSoManyEvaluationsWithoutImprovement) {
  config_.early_stopping = {.metric = "val_loss", .patience = 2, .min_delta = 0.1};
  for (const double loss : {1.0, 0.95, 0.5}) evaluate("val_loss", loss);
  evaluate("val_loss", 0.45);
  EXPECT_FALSE(watch_.stops_early());
  evaluate("val_loss", 0.45);
  EXPECT_TRUE(watch_.stops_early());
  EXPECT_DOUBLE_EQ(state_.best_metric, 0.5);
  // The memory is in the state: another watch goes on with it.
  EXPECT_TRUE(MetricWatch(config_, state_).stops_early());
}

TEST_F(MetricWatchTest, MoreIsBetterForAClipScore) {
  config_.early_stopping = {.metric = "clip_score", .patience = 1};
  evaluate("clip_score", 20.0);
  evaluate("clip_score", 25.0);
  EXPECT_FALSE(watch_.stops_early());
  evaluate("clip_score", 24.0);
  EXPECT_TRUE(watch_.stops_early());
}

TEST_F(MetricWatchTest, NamesWhatThereIsWhereTheMetricIsNot) {
  config_.early_stopping = {.metric = "val_loss_ema", .patience = 1};
  try {
    evaluate("val_loss", 1.0);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("which is val_samples, val_loss"));
  }
  config_.early_stopping.metric = "fid";
  config_.scores.metrics = {"fid"};  // Not due at this evaluation.
  EXPECT_NO_THROW(evaluate("val_loss", 1.0));
}

TEST_F(MetricWatchTest, TheBestCheckpointIsThatOfTheLeastLoss) {
  config_.early_stopping.metric = "val_loss";
  config_.checkpoint.best = BestCheckpoint::kSaved;
  evaluate("val_loss", 1.0);
  EXPECT_TRUE(watch_.is_best_to_save(Saves::kIfBest));
  evaluate("val_loss", 2.0);
  EXPECT_FALSE(watch_.is_best_to_save(Saves::kAnyway));
  EXPECT_EQ(state_.best_step, 1);
  evaluate("val_loss", 0.5);
  EXPECT_TRUE(watch_.is_best_to_save(Saves::kIfBest));
  EXPECT_EQ(state_.best_step, 3);
  ++state_.step;  // Without an evaluation.
  watch_.begin_step();
  EXPECT_FALSE(watch_.is_best_to_save(Saves::kAnyway));
}
}  // namespace
}  // namespace trireme
