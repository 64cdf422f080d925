#include "launcher/check_advice.h"

#include <algorithm>
#include <cmath>

#include "launcher/report_table.h"

namespace trireme {
namespace {

// Beyond these the remark is worth a reader's time; docs/check.md gives the reasons.
constexpr double kLrFactorMax = 8.0;
constexpr double kEpochsMax = 100.0;
constexpr int64_t kSmallDataset = 1000;
constexpr double kShrinkageMax = 0.5;
constexpr double kWarmupShareMax = 0.5;
constexpr int64_t kNumStepsSummed = 10000;

void advise_learning_rate(const Config& config, const RunFacts& facts,
                          std::vector<std::string>& advice) {
  const double factor = facts.scaled.lr / config.optim.lr;
  if (factor > kLrFactorMax) {
    advice.push_back("optim.lr is scaled by " + format_number(factor) +
                     " over the value that was chosen for a batch of " +
                     std::to_string(config.optim.lr_base_batch) +
                     ": scaling rules fail that far out. Use lr_scaling = \"sqrt\", a longer "
                     "warm-up, or a reference nearer to the batch.");
  }
  const int64_t warmup = config.lr_schedule.warmup_steps;
  if (warmup >= facts.steps) {
    advice.push_back("lr_schedule.warmup_steps = " + std::to_string(warmup) +
                     " is not shorter than the run (" + std::to_string(facts.steps) +
                     " steps): the learning rate never leaves warm-up. Shorten it to some 5 % of "
                     "the run.");
  } else if (static_cast<double>(warmup) > kWarmupShareMax * static_cast<double>(facts.steps)) {
    advice.push_back("lr_schedule.warmup_steps = " + std::to_string(warmup) +
                     " takes more than half of the run (" + std::to_string(facts.steps) +
                     " steps). Some 5 % is usual.");
  }
  const double shrinkage = config.optim.weight_decay *
                           sum_of_learning_rates(config.lr_schedule, facts.scaled.lr, facts.steps);
  if (shrinkage > kShrinkageMax) {
    advice.push_back("optim.weight_decay x learning rate x steps is " + format_number(shrinkage) +
                     ": decay alone shrinks a weight to " +
                     format_number(100.0 * std::exp(-shrinkage)) +
                     " % of what it was, which undoes the base model. Lower weight_decay.");
  }
}

void advise_data(const Config& config, const RunFacts& facts, std::vector<std::string>& advice) {
  if (facts.num_training < facts.global_batch) {
    advice.push_back("the dataset has fewer samples (" + std::to_string(facts.num_training) +
                     ") than a batch (" + std::to_string(facts.global_batch) +
                     "): a step draws some samples more than once. Lower batch.global or add "
                     "data.");
  }
  const double epochs = static_cast<double>(facts.steps) * static_cast<double>(facts.global_batch) /
                        static_cast<double>(facts.num_training);
  if (epochs > kEpochsMax && facts.num_training < kSmallDataset) {
    advice.push_back("the run draws each of " + std::to_string(facts.num_training) + " samples " +
                     format_number(epochs) +
                     " times: it is likely to learn them by heart. Watch the validation loss, set "
                     "early_stopping.patience, or train fewer steps, an adapter, or with a lower "
                     "rate.");
  }
  const bool evaluates = config.eval.every_steps > 0;
  if (evaluates && facts.num_validation == 0) {
    advice.push_back(
        "there is no validation data: overfitting will not be seen. Give "
        "data.validation, or data.validation_fraction = 0.05.");
  }
  if (config.early_stopping.patience > 0 && (!evaluates || facts.num_validation == 0)) {
    advice.push_back(
        "early_stopping.patience is set, but nothing is evaluated. Set "
        "eval.every_steps and validation data.");
  }
  if (config.data.caption_dropout == 0.0 && config.sample.guidance > 1.0 &&
      config.sample.count > 0 && facts.steps * facts.global_batch > 100000) {
    advice.push_back("data.caption_dropout is 0 while samples use guidance " +
                     format_number(config.sample.guidance) +
                     ": in a long run the model forgets the empty prompt that guidance needs. 0.1 "
                     "is usual.");
  }
}

void advise_objective(const Config& config, const RunFacts& facts,
                      std::vector<std::string>& advice) {
  const bool epsilon = config.objective.prediction == Prediction::kEpsilon;
  if (config.noise.rescale_zero_terminal_snr && epsilon) {
    advice.push_back(
        "noise.rescale_zero_terminal_snr with prediction = \"epsilon\": at the last "
        "timestep the input is pure noise and epsilon says nothing of the picture. "
        "Use v_prediction.");
  }
  if (config.ema.decay > 0.0 && config.ema.decay < 1.0) {
    const double horizon = 1.0 / (1.0 - config.ema.decay);
    if (horizon > static_cast<double>(facts.steps)) {
      advice.push_back("ema.decay = " + format_number(config.ema.decay) + " averages over some " +
                       format_number(horizon) + " steps, more than the run has (" +
                       std::to_string(facts.steps) +
                       "): the average keeps much of the initial weights. Lower it.");
    }
  }
  if (config.eval.every_steps > facts.steps) {
    advice.push_back("eval.every_steps = " + std::to_string(config.eval.every_steps) +
                     " is beyond the run: it evaluates only before the first and after the last "
                     "step.");
  }
}
}  // namespace

double sum_of_learning_rates(const LrScheduleOptions& schedule, double base_lr, int64_t steps) {
  // A long run is summed at equal distances.
  const int64_t num_points = std::min(steps, kNumStepsSummed);
  double sum = 0.0;
  for (int64_t i = 0; i < num_points; ++i) {
    const auto step =
        static_cast<int64_t>((static_cast<double>(i) + 0.5) * static_cast<double>(steps) /
                             static_cast<double>(num_points));
    sum += learning_rate(schedule, base_lr, std::clamp<int64_t>(step + 1, 1, steps), steps);
  }
  return num_points > 0 ? sum / static_cast<double>(num_points) * static_cast<double>(steps) : 0.0;
}

std::vector<std::string> advise(const Config& config, const RunFacts& facts) {
  std::vector<std::string> advice;
  advise_learning_rate(config, facts, advice);
  advise_data(config, facts, advice);
  advise_objective(config, facts, advice);
  return advice;
}
}  // namespace trireme
