// The part of Trainer that evaluates, and decides by it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "core/log.h"
#include "trainer/evaluate/memorisation.h"
#include "trainer/evaluate/sample_grid.h"
#include "trainer/evaluate/sample_prompts.h"
#include "trainer/evaluate/sampling.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
constexpr int64_t kMaxCompared = 10000;  // Training latents that a sample is compared with.

std::string names_of(const EvalMetrics& metrics) {
  std::string names;
  for (const auto& [name, value] : metrics) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "nothing" : names;
}
}  // namespace

// Whether the step just launched is followed by what needs its numbers.
bool Trainer::is_something_due() const {
  return state_.step == plan_.steps || is_evaluation_due() || is_checkpoint_due();
}

bool Trainer::is_checkpoint_due() const {
  const int64_t every = config_.checkpoint.every_steps;
  return every > 0 && state_.step % every == 0;
}

bool Trainer::is_evaluation_due() const {
  const int64_t every = config_.eval.every_steps;
  return every > 0 && (state_.step == plan_.steps || state_.step % every == 0);
}

void Trainer::evaluate() {
  if (config_.eval.every_steps == 0) return;
  wait_for_parameters();
  const auto span = clock_.measure(Phase::kEvaluation);
  if (log_) log_->activity("step " + std::to_string(state_.step) + ": evaluating");
  EvalMetrics metrics;
  if (session_.num_validation() > 0) {
    std::function<void(const std::function<void()>&)> with_average;
    if (ema_) {
      with_average = [this](const std::function<void()>& measure) {
        exchange_average();
        measure();
        exchange_average();
      };
    }
    metrics = validation_metrics(mpi_, session_, with_average);
  }
  for (const EvalMetrics& more : {score(), sample()}) {
    metrics.insert(metrics.end(), more.begin(), more.end());
  }
  note_evaluation(metrics);
  if (log_ && !metrics.empty()) log_->evaluation(state_.step, metrics);
}

EvalMetrics Trainer::score() {
  if (!scorer_ || !scores_are_due(config_.scores, state_.step, plan_.steps)) return {};
  if (ema_) exchange_average();
  EvalMetrics metrics;
  for (const Score& score :
       scorer_->evaluate(mpi_, session_, score_cache(config_, options_.run_dir))) {
    metrics.emplace_back(score.name, score.value);
  }
  if (ema_) exchange_average();
  return metrics;
}

EvalMetrics Trainer::sample() {
  if (config_.sample.count == 0) return {};
  if (!find_vae(config_) && config_.eval.memorisation != Memorisation::kOn) return {};
  if (ema_) exchange_average();
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(state_.step));
  const EvalMetrics metrics = measure_samples(name);
  if (ema_) exchange_average();
  return metrics;
}

// Draws, where there is a VAE, and compares with the training data.
EvalMetrics Trainer::measure_samples(const std::string& name) {
  const auto folder = options_.run_dir / "samples";
  SamplePrompts prompts;
  mpi_.run_on_all_ranks([&] { prompts = choose_prompts(session_); });
  if (prompts.captions.empty()) return {};
  const at::Tensor latents = sample_latents(mpi_, session_, prompts);
  if (const auto vae = find_vae(config_)) {
    const auto picture = folder / (name + ".png");
    write_sample_grid(mpi_, session_, *vae, prompts, latents, picture);
    if (log_) log_->picture(state_.step, "samples", picture);
  }
  if (config_.eval.memorisation == Memorisation::kOff) return {};
  const auto search = find_nearest_training(mpi_, session_, latents, kMaxCompared);
  EvalMetrics metrics = memorisation_metrics(search);
  mpi_.run_on_all_ranks([&] {
    if (mpi_.rank() != 0 || metrics.empty()) return;
    write_nearest(*session_.dataset, prompts.captions, search, folder / (name + ".nearest.jsonl"));
  });
  return metrics;
}

bool Trainer::stops_early() const {
  const int64_t patience = config_.early_stopping.patience;
  return patience > 0 && state_.evaluations_without_improvement >= patience;
}

// What turns early_stopping.metric into a number of which less is better.
double Trainer::metric_sign() const {
  const auto& early = config_.early_stopping;
  const bool is_more = early.mode == MetricMode::kMax ||
                       (early.mode == MetricMode::kAuto && early.metric == "clip_score");
  return is_more ? -1.0 : 1.0;
}

// Early stopping's memory. Scores need not be due at every evaluation.
void Trainer::note_evaluation(const EvalMetrics& metrics) {
  const auto& early = config_.early_stopping;
  metric_ = find_metric(metrics, early.metric);
  if (!metric_) {
    const bool is_score = std::ranges::count(config_.scores.metrics, early.metric) > 0;
    if (early.patience == 0 || is_score) return;
    throw UsageError("early_stopping.metric = \"" + early.metric +
                     "\" is not among what this run evaluates, which is " + names_of(metrics) +
                     ". Choose one of these, or set early_stopping.patience = 0.");
  }
  const double sign = metric_sign();
  const bool improved =
      state_.evaluations == 0 || sign * *metric_ < sign * state_.best_metric - early.min_delta;
  ++state_.evaluations;
  state_.evaluations_without_improvement =
      improved ? 0 : state_.evaluations_without_improvement + 1;
  if (improved) state_.best_metric = *metric_;
}

// Whether the checkpoint of this step is, or would be, the best so far and worth saving; notes it.
bool Trainer::is_best_to_save(Saves saves) {
  const auto best = config_.checkpoint.best;
  if (best == BestCheckpoint::kOff || !metric_ || !std::isfinite(*metric_)) return false;
  const double sign = metric_sign();
  const bool is_best = state_.best_step == 0 || sign * *metric_ < sign * state_.best_step_metric;
  const bool is_worth_it = saves == Saves::kAnyway || best == BestCheckpoint::kSaved ||
                           (best == BestCheckpoint::kAuto && config_.early_stopping.patience > 0);
  if (!is_best || !is_worth_it) return false;
  state_.best_step = state_.step;
  state_.best_step_metric = *metric_;
  return true;
}

bool Trainer::weights_are_finite() const {
  const torch::NoGradGuard no_grad;
  for (const auto& bucket : buckets_->flat()) {
    // NaN is passed on by both.
    const double least = bucket.params.min().item<double>();
    const double most = bucket.params.max().item<double>();
    if (!std::isfinite(least) || !std::isfinite(most)) return false;
  }
  return true;
}

// The update of `diverged_step` was not made: where no other one was, the weights are those before.
void Trainer::keep_last_weights(int64_t diverged_step) {
  wait_for_parameters();
  if (options_.run_dir.empty()) return;
  if (in_flight_.empty() && diverged_step > 1 && weights_are_finite()) {
    state_.step = diverged_step - 1;
    state_.samples = plan_.global_batch.samples_after(state_.step);
    save_checkpoint();
  }
  if (log_) {
    log_->event(diverged_step - 1, "diverged", JsonLine().add("reason", guard_.reason()));
  }
}
}  // namespace trireme
