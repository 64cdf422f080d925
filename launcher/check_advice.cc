#include "launcher/check_advice.h"

#include <algorithm>
#include <cmath>

#include "launcher/report_table.h"
#include "study/fit_report.h"

namespace trireme {
namespace {

// Beyond these the remark is worth a reader's time; docs/check.md gives the reasons.
constexpr double kLrFactorMax = 8.0;
constexpr double kBatchFactorMax = 32.0;
constexpr double kEpochsMax = 50.0;
constexpr int64_t kSmallDataset = 1000;
constexpr double kShrinkageMax = 0.5;
constexpr double kDecayRateMax = 1e-4;
constexpr double kWarmupShareMax = 0.5;
constexpr int64_t kNumStepsSummed = 10000;
constexpr int64_t kLongRun = 100000;  // Samples drawn.

using Advice = std::vector<std::string>;

void advise_learning_rate(const Config& config, const RunFacts& facts, Advice& advice) {
  const double factor = total_learning_rates(config.optim, facts.plan).peak / config.optim.lr;
  const double batches = config.optim.lr_base_batch > 0
                             ? static_cast<double>(facts.plan.last_batch()) /
                                   static_cast<double>(config.optim.lr_base_batch)
                             : 1.0;
  if (factor > kLrFactorMax || batches > kBatchFactorMax) {
    advice.push_back("optim.lr is scaled by " + format_rounded(factor) +
                     " over the value that was chosen for a batch of " +
                     std::to_string(config.optim.lr_base_batch) + ", to one " +
                     format_rounded(batches) +
                     " times as large: scaling rules hold near their reference only, and fail "
                     "that far out. Use lr_scaling = \"sqrt\", a longer warm-up, or a reference "
                     "nearer to the batch.");
  }
  const int64_t warmup = facts.plan.lr_schedule.warmup_steps;
  if (warmup >= facts.plan.steps) {
    advice.push_back("the warm-up (" + std::to_string(warmup) +
                     " steps) is not shorter than the run (" + std::to_string(facts.plan.steps) +
                     " steps): the learning rate never reaches its value. Shorten "
                     "lr_schedule.warmup_steps to some 5 % of the run, or set warmup_fraction = "
                     "0.05 instead.");
  } else if (static_cast<double>(warmup) >
             kWarmupShareMax * static_cast<double>(facts.plan.steps)) {
    advice.push_back("the warm-up (" + std::to_string(warmup) +
                     " steps) takes more than half of the run (" +
                     std::to_string(facts.plan.steps) +
                     " steps): little is left at the full rate. Some 5 % is usual "
                     "(lr_schedule.warmup_fraction = 0.05).");
  }
}

void advise_decay(const Config& config, const RunFacts& facts, Advice& advice) {
  const LrTotals totals = total_learning_rates(config.optim, facts.plan);
  const double shrinkage = config.optim.weight_decay * totals.sum;
  const double rate = config.optim.weight_decay * totals.peak;
  if (shrinkage > kShrinkageMax) {
    advice.push_back("optim.weight_decay x learning rate x steps is " + format_rounded(shrinkage) +
                     ": decay alone shrinks a weight to " +
                     format_rounded(100.0 * std::exp(-shrinkage)) +
                     " % of what it was, which undoes the base model. Lower weight_decay or the "
                     "learning rate: their product counts.");
  } else if (rate > kDecayRateMax) {
    advice.push_back("optim.weight_decay = " + format_number(config.optim.weight_decay) +
                     " is strong for a learning rate of " + format_number(totals.peak) +
                     ": decay acts in proportion to the rate, and would halve a weight in " +
                     format_rounded(std::log(2.0) / rate) +
                     " steps. Lower one when raising the other; 0.01 goes with rates up to 1e-3.");
  }
}

void advise_data(const Config& config, const RunFacts& facts, Advice& advice) {
  const int64_t batch = facts.plan.last_batch();
  if (facts.num_training < batch) {
    advice.push_back("the dataset has fewer samples (" + std::to_string(facts.num_training) +
                     " an epoch) than a batch (" + std::to_string(batch) +
                     "): a step draws some samples more than once, and its gradient knows less "
                     "than its size says. Lower batch.global or add data.");
  }
  const double times =
      static_cast<double>(facts.samples_drawn()) / static_cast<double>(facts.num_distinct);
  if (times > kEpochsMax && facts.num_distinct < kSmallDataset) {
    advice.push_back("the run draws each of " + std::to_string(facts.num_distinct) + " samples " +
                     format_rounded(times) +
                     " times: it is likely to learn them by heart (overfitting). Watch "
                     "overfit_gap and memorised_fraction, set early_stopping.patience, or train "
                     "fewer steps, an adapter, or with a lower rate.");
  }
  const bool evaluates = config.eval.every_steps > 0;
  if (evaluates && facts.num_validation == 0) {
    advice.push_back(
        "there is no validation data: overfitting will not be seen. Give "
        "data.validation, or data.validation_fraction = 0.05.");
  }
  if (config.data.caption_dropout == 0.0 && config.sample.guidance > 1.0 &&
      config.sample.count > 0 && facts.samples_drawn() > kLongRun) {
    advice.push_back("data.caption_dropout is 0 while samples use guidance " +
                     format_number(config.sample.guidance) +
                     ": in a long run the model forgets the empty prompt that guidance needs. 0.1 "
                     "is usual.");
  }
}

void advise_objective(const Config& config, Advice& advice) {
  const Prediction prediction = config.objective.prediction;
  if (config.noise.rescale_zero_terminal_snr && prediction == Prediction::kFlow) {
    advice.push_back(
        "noise.rescale_zero_terminal_snr has no effect with prediction = \"flow\", whose path ends "
        "in pure noise by itself. Remove it.");
  } else if (config.noise.rescale_zero_terminal_snr && prediction != Prediction::kVPrediction) {
    advice.push_back(
        std::string("noise.rescale_zero_terminal_snr without v prediction: at the last timestep "
                    "the input is pure noise, ") +
        (prediction == Prediction::kEpsilon
             ? "and epsilon, which is that input, says nothing of the picture"
             : "where the picture itself can only be guessed as the mean of all") +
        ". Use objective.prediction = \"v_prediction\".");
  }
  const auto& range = config.objective.timestep_range;
  if (prediction != Prediction::kFlow && range[0] > 0.0 && config.eval.every_steps > 0 &&
      config.early_stopping.patience > 0) {
    advice.push_back(
        "objective.timestep_range trains a part of the schedule while validation covers all of it: "
        "early stopping then judges what is not trained. Watch a band, early_stopping.metric = "
        "\"val_loss_band_K\".");
  }
}

void advise_ends(const Config& config, const RunFacts& facts, Advice& advice) {
  const int64_t steps = facts.plan.steps;
  if (config.ema.decay > 0.0) {
    const double horizon = 1.0 / (1.0 - config.ema.decay);
    if (horizon > static_cast<double>(steps)) {
      advice.push_back("ema.decay = " + format_number(config.ema.decay) + " averages over some " +
                       format_rounded(horizon) + " steps, more than the run has (" +
                       std::to_string(steps) +
                       "): the average keeps much of the early weights. Lower it; 1 - 10 / steps "
                       "averages over a tenth of the run.");
    }
  }
  const double evaluating = static_cast<double>(num_evaluations(config, steps)) *
                            static_cast<double>(evaluation_passes(config, facts));
  if (evaluating > training_passes(config, facts)) {
    advice.push_back(
        "evaluations take more time than training: " +
        format_plural(num_evaluations(config, steps), "evaluation") + " of " +
        format_count(evaluation_passes(config, facts)) +
        " forward passes each. Raise eval.every_steps, lower eval.timesteps, or set "
        "eval.overfit_gap = false, which halves them.");
  }
  if (config.eval.every_steps > steps) {
    advice.push_back("eval.every_steps = " + std::to_string(config.eval.every_steps) +
                     " is beyond the run: it evaluates only before the first and after the last "
                     "step, so nothing can be decided by it on the way. Lower it.");
  }
  for (const auto& phase : facts.plan.global_batch.phases()) {
    if (phase.first_step <= steps) continue;
    advice.push_back("batch.grow_to = " + std::to_string(phase.global_batch) +
                     " begins with step " + std::to_string(phase.first_step) +
                     ", after the end of the run: it never comes. Lower batch.grow_at, or train "
                     "longer.");
  }
}
}  // namespace

LrTotals total_learning_rates(const OptimOptions& optim, const RunPlan& plan) {
  LrTotals totals;
  for (const auto& phase : plan.global_batch.phases()) {
    if (phase.first_step > plan.steps) continue;
    totals.peak = std::max(totals.peak, scale_learning_rate(optim, phase.global_batch).lr);
  }
  // A long run is summed at equal distances.
  const int64_t num_points = std::min(plan.steps, kNumStepsSummed);
  for (int64_t i = 0; i < num_points; ++i) {
    const auto u =
        static_cast<int64_t>((static_cast<double>(i) + 0.5) * static_cast<double>(plan.steps) /
                             static_cast<double>(num_points));
    const int64_t step = std::clamp<int64_t>(u + 1, 1, plan.steps);
    const double base = scale_learning_rate(optim, plan.global_batch.global_batch(step)).lr;
    totals.sum += learning_rate(plan.lr_schedule, base, step, plan.steps);
  }
  totals.sum *= static_cast<double>(plan.steps) / static_cast<double>(num_points);
  return totals;
}

int64_t evaluation_passes(const Config& config, const RunFacts& facts) {
  const int64_t kinds = config.ema.decay > 0.0 ? 2 : 1;  // Of weights.
  const int64_t training =
      config.eval.overfit_gap ? std::min(facts.num_validation, facts.num_distinct) : 0;
  return kinds * config.eval.timesteps * (facts.num_validation + training);
}

int64_t num_evaluations(const Config& config, int64_t steps) {
  const int64_t every = config.eval.every_steps;
  return every == 0 ? 0 : 2 + (steps - 1) / every;  // Before the first step, and after the last.
}

double training_passes(const Config& config, const RunFacts& facts) {
  const double sources = config.data.prior.empty() ? 1.0 : 2.0;
  const double passes = config.parallel.activation_checkpointing ? 4.0 : 3.0;
  return sources * passes * static_cast<double>(facts.samples_drawn());
}

double ema_half_life(double decay) { return std::log(0.5) / std::log(decay); }

std::vector<std::string> advise(const Config& config, const RunFacts& facts) {
  Advice advice;
  advise_learning_rate(config, facts, advice);
  advise_decay(config, facts, advice);
  advise_data(config, facts, advice);
  advise_objective(config, advice);
  advise_ends(config, facts, advice);
  return advice;
}
}  // namespace trireme
