#include "trainer/evaluate/eval_metrics.h"

#include <algorithm>

namespace trireme {
namespace {
// One kind of weights; `suffix` is "" or "_ema".
struct Losses {
  ValidationResult validation;
  std::optional<ValidationResult> training;
};

Losses measure(MpiEnvironment& mpi, Session& session) {
  Losses losses{.validation = evaluate_validation(mpi, session), .training = std::nullopt};
  if (session.config.eval.overfit_gap) losses.training = evaluate_training(mpi, session);
  return losses;
}

void add_bands(const Losses& losses, const std::string& suffix, EvalMetrics& metrics) {
  const auto& bands = losses.validation.band_losses;
  for (size_t band = 0; band < bands.size(); ++band) {
    metrics.emplace_back("val_loss" + suffix + "_band_" + std::to_string(band), bands[band]);
  }
}

void add_gap(const Losses& losses, const std::string& suffix, EvalMetrics& metrics) {
  if (!losses.training) return;
  metrics.emplace_back("train_loss_fixed" + suffix, losses.training->loss);
  metrics.emplace_back("overfit_gap" + suffix, losses.training->loss - losses.validation.loss);
}
}  // namespace

std::optional<double> find_metric(const EvalMetrics& metrics, std::string_view name) {
  const auto found = std::ranges::find(metrics, name, &EvalMetrics::value_type::first);
  return found == metrics.end() ? std::nullopt : std::optional(found->second);
}

EvalMetrics validation_metrics(
    MpiEnvironment& mpi, Session& session,
    const std::function<void(const std::function<void()>&)>& with_average) {
  const Losses raw = measure(mpi, session);
  std::optional<Losses> average;
  if (with_average) with_average([&] { average = measure(mpi, session); });
  EvalMetrics metrics;
  metrics.emplace_back("val_loss", raw.validation.loss);
  if (average) metrics.emplace_back("val_loss_ema", average->validation.loss);
  add_bands(raw, "", metrics);
  if (average) add_bands(*average, "_ema", metrics);
  add_gap(raw, "", metrics);
  if (average) add_gap(*average, "_ema", metrics);
  metrics.emplace_back("val_samples", static_cast<double>(raw.validation.num_samples));
  return metrics;
}
}  // namespace trireme
