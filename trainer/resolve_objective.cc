#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/diffusion/scheduler_config.h"
#include "trainer/pipeline_folder.h"
#include "trainer/session.h"

namespace trireme {
namespace {
std::string text_of(Prediction value) { return name_of(value); }
std::string text_of(BetaSchedule value) { return name_of(value); }
std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}
std::string text_of(const std::vector<double>& list) {
  return list.empty() ? "none" : "a list of " + std::to_string(list.size());
}

// Takes the scheduler's value for a key that the user did not set; keeps the user's, with a
// warning, where both are there and differ.
template <typename T>
void settle(T& value, const T& of_scheduler, std::string_view key,
            const std::vector<std::string>& keys_set, const std::string& file,
            std::vector<std::string>& warnings) {
  if (value == of_scheduler) return;
  if (std::find(keys_set.begin(), keys_set.end(), key) == keys_set.end()) {
    value = of_scheduler;
    return;
  }
  warnings.push_back(
      std::string(key) + " is " + text_of(value) + ", but the model was trained with " +
      text_of(of_scheduler) + " (" + file +
      "): the configuration's value is used, and the network has to unlearn its own first, which "
      "costs many steps and may never end. Remove the key to use the model's own.");
}
}  // namespace

ResolvedObjective resolve_objective(const Config& config,
                                    const std::vector<std::string>& keys_set) {
  ResolvedObjective resolved{.objective = config.objective, .noise = config.noise, .warnings = {}};
  const auto folder = pipeline_part(config.model.weights, "scheduler");
  if (!folder) return resolved;
  const auto scheduler = read_scheduler_config(*folder);
  if (!scheduler) return resolved;
  const std::string file = (*folder / "scheduler_config.json").string();
  const auto take = [&](auto& value, const auto& of_scheduler, std::string_view key) {
    settle(value, of_scheduler, key, keys_set, file, resolved.warnings);
  };
  take(resolved.objective.prediction, scheduler->prediction, "objective.prediction");
  if (resolved.objective.prediction == Prediction::kFlow) return resolved;
  // A list of betas stands for the keys below it, of which none is then of interest.
  const auto is_set = [&](std::string_view key) {
    return std::find(keys_set.begin(), keys_set.end(), key) != keys_set.end();
  };
  const bool own_list = is_set("noise.trained_betas");
  const bool own_formula = is_set("noise.schedule") || is_set("noise.beta_start") ||
                           is_set("noise.beta_end") || is_set("noise.timesteps");
  if (own_list || !own_formula || scheduler->noise.trained_betas.empty()) {
    take(resolved.noise.trained_betas, scheduler->noise.trained_betas, "noise.trained_betas");
  } else {
    resolved.warnings.push_back("[noise] differs from the betas that the model was trained with (" +
                                file + ": trained_betas): the configuration's values are used.");
  }
  if (!own_list) {
    take(resolved.noise.schedule, scheduler->noise.schedule, "noise.schedule");
    take(resolved.noise.beta_start, scheduler->noise.beta_start, "noise.beta_start");
    take(resolved.noise.beta_end, scheduler->noise.beta_end, "noise.beta_end");
    take(resolved.noise.timesteps, scheduler->noise.timesteps, "noise.timesteps");
  }
  take(resolved.noise.rescale_zero_terminal_snr, scheduler->noise.rescale_zero_terminal_snr,
       "noise.rescale_zero_terminal_snr");
  return resolved;
}
}  // namespace trireme
