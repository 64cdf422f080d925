#include "trainer/checkpoint/state_file.h"

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace trireme {
namespace {
using Json = nlohmann::ordered_json;

int64_t read_count(const Json& json, const char* key, const std::filesystem::path& file) {
  if (!json.contains(key) || !json[key].is_number_unsigned() ||
      json[key].get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw InputError(file.string() + ": '" + key +
                     "' is missing or not a whole number. The checkpoint cannot be trusted; use "
                     "another one of the "
                     "run.");
  }
  return json[key].get<int64_t>();
}

// Statistics that a checkpoint of an earlier version lacks begin anew.
double read_number(const Json& json, const char* table, const char* key, double otherwise) {
  if (!json.contains(table) || !json[table].is_object()) return otherwise;
  const Json& values = json[table];
  return values.contains(key) && values[key].is_number() ? values[key].get<double>() : otherwise;
}
}  // namespace

std::string state_json(const CheckpointState& state) {
  Json json = {{"step", state.step},
               {"samples", state.samples},
               {"metrics_size_bytes", state.metrics_size_bytes},
               {"evaluations", state.evaluations},
               {"evaluations_without_improvement", state.evaluations_without_improvement}};
  json["owes_evaluation"] = state.owes_evaluation;
  json["best_metric"] = std::isfinite(state.best_metric) ? Json(state.best_metric) : Json(nullptr);
  json["noise_scale"] = {{"signal", state.noise_scale_signal},
                         {"noise", state.noise_scale_noise},
                         {"weight", state.noise_scale_weight}};
  json["loss_scale"] = {{"scale", state.loss_scale}, {"good_steps", state.loss_scale_good_steps}};
  json["best"] = {{"step", state.best_step}, {"metric", state.best_step_metric}};
  json["divergence"] = {{"updates", state.updates},
                        {"skipped", state.skipped},
                        {"skipped_in_a_row", state.skipped_in_a_row},
                        {"loss_average", state.loss_average},
                        {"grad_norm_average", state.grad_norm_average}};
  return json.dump(2) + "\n";
}

CheckpointState read_state(const std::filesystem::path& folder) {
  const auto file = folder / "state.json";
  const Json json =
      Json::parse(read_text_file(file, "checkpoint state", uint64_t{1} << 20), nullptr,
                  /*allow_exceptions=*/false);
  if (!json.is_object())
    throw InputError(file.string() + " is not a JSON object. Use another checkpoint of the run.");
  CheckpointState state;
  state.step = read_count(json, "step", file);
  state.samples = read_count(json, "samples", file);
  state.metrics_size_bytes = static_cast<uint64_t>(read_count(json, "metrics_size_bytes", file));
  state.evaluations = read_count(json, "evaluations", file);
  state.evaluations_without_improvement = read_count(json, "evaluations_without_improvement", file);
  state.owes_evaluation = json.value("owes_evaluation", Json()) == true;
  const bool has_best = json.contains("best_metric") && json["best_metric"].is_number();
  state.best_metric =
      has_best ? json["best_metric"].get<double>() : std::numeric_limits<double>::quiet_NaN();
  state.noise_scale_signal = read_number(json, "noise_scale", "signal", 0.0);
  state.noise_scale_noise = read_number(json, "noise_scale", "noise", 0.0);
  state.noise_scale_weight = read_number(json, "noise_scale", "weight", 0.0);
  state.loss_scale = read_number(json, "loss_scale", "scale", state.loss_scale);
  state.loss_scale_good_steps =
      static_cast<int64_t>(read_number(json, "loss_scale", "good_steps", 0.0));
  const auto count = [&](const char* table, const char* key) {
    return static_cast<int64_t>(read_number(json, table, key, 0.0));
  };
  state.best_step = count("best", "step");
  state.best_step_metric = read_number(json, "best", "metric", 0.0);
  state.updates = count("divergence", "updates");
  state.skipped = count("divergence", "skipped");
  state.skipped_in_a_row = count("divergence", "skipped_in_a_row");
  state.loss_average = read_number(json, "divergence", "loss_average", 0.0);
  state.grad_norm_average = read_number(json, "divergence", "grad_norm_average", 0.0);
  state.config_toml = read_text_file(folder / "config.toml", "checkpoint configuration");
  return state;
}
}  // namespace trireme
