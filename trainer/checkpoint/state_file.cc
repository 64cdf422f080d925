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
}  // namespace

std::string state_json(const CheckpointState& state) {
  Json json = {{"step", state.step},
               {"samples", state.samples},
               {"metrics_size_bytes", state.metrics_size_bytes},
               {"evaluations", state.evaluations},
               {"evaluations_without_improvement", state.evaluations_without_improvement}};
  json["best_metric"] = std::isfinite(state.best_metric) ? Json(state.best_metric) : Json(nullptr);
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
  const bool has_best = json.contains("best_metric") && json["best_metric"].is_number();
  state.best_metric =
      has_best ? json["best_metric"].get<double>() : std::numeric_limits<double>::quiet_NaN();
  state.config_toml = read_text_file(folder / "config.toml", "checkpoint configuration");
  return state;
}
}  // namespace trireme
