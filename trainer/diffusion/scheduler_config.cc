#include "trainer/diffusion/scheduler_config.h"

#include <array>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
using Json = nlohmann::json;

constexpr std::array<std::pair<BetaSchedule, const char*>, 4> kSchedules = {{
    {BetaSchedule::kLinear, "linear"},
    {BetaSchedule::kScaledLinear, "scaled_linear"},
    {BetaSchedule::kSquaredCosCapV2, "squaredcos_cap_v2"},
    {BetaSchedule::kSigmoid, "sigmoid"},
}};
// DPM-Solver and UniPC call it flow_prediction.
constexpr std::array<std::pair<Prediction, const char*>, 4> kPredictions = {{
    {Prediction::kEpsilon, "epsilon"},
    {Prediction::kVPrediction, "v_prediction"},
    {Prediction::kSample, "sample"},
    {Prediction::kFlow, "flow_prediction"},
}};

template <typename Table, typename Value>
std::string name_in(const Table& table, Value value) {
  for (const auto& [known, name] : table) {
    if (known == value) return name;
  }
  throw InternalError("a value without a name");
}

// One scheduler_config.json, with errors that name file and key.
class ConfigReader {
 public:
  ConfigReader(Json json, std::filesystem::path file)
      : json_(std::move(json)), file_(std::move(file)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& problem) const {
    throw InputError(file_.string() + ": '" + key + "' " + problem +
                     ". Correct the file, or remove it and state [objective] and [noise] in the "
                     "configuration.");
  }
  [[nodiscard]] bool has(const std::string& key) const {
    return json_.contains(key) && !json_.at(key).is_null();
  }
  [[nodiscard]] std::string text(const std::string& key, const std::string& absent) const {
    if (!has(key)) return absent;
    if (!json_.at(key).is_string()) fail(key, "must be a string");
    return json_.at(key).get<std::string>();
  }
  [[nodiscard]] double number(const std::string& key, double absent) const {
    if (!has(key)) return absent;
    if (!json_.at(key).is_number()) fail(key, "must be a number");
    return json_.at(key).get<double>();
  }
  [[nodiscard]] bool flag(const std::string& key) const {
    if (!has(key)) return false;
    if (!json_.at(key).is_boolean()) fail(key, "must be true or false");
    return json_.at(key).get<bool>();
  }
  [[nodiscard]] int64_t count(const std::string& key, int64_t absent) const {
    const double value = number(key, static_cast<double>(absent));
    if (!(value >= 1 && value <= 1e6) || value != std::floor(value)) {
      fail(key, "must be a whole number in 1 ... 1000000");
    }
    return static_cast<int64_t>(value);
  }
  template <typename Table>
  [[nodiscard]] auto choice(const std::string& key, const Table& table,
                            const std::string& absent) const {
    const std::string word = text(key, absent);
    std::string names;
    for (const auto& [value, name] : table) {
      if (word == name) return value;
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    fail(key, "is '" + word + "', which is none of " + names);
  }

 private:
  Json json_;
  std::filesystem::path file_;
};

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

void refuse_other_processes(const ConfigReader& config, const std::string& name) {
  for (const char* prefix :
       {"EDM", "UnCLIP", "CogVideoX", "CMStochastic", "VQ", "ScoreSde", "Amused"}) {
    if (starts_with(name, prefix)) {
      config.fail("_class_name", "is " + name + ", whose noise process is not supported");
    }
  }
}
}  // namespace

std::optional<SchedulerConfig> read_scheduler_config(const std::filesystem::path& folder) {
  const auto file = folder / "scheduler_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  const ConfigReader config(read_json_object(file, "scheduler configuration"), file);
  const std::string name = config.text("_class_name", "DDPMScheduler");
  refuse_other_processes(config, name);

  SchedulerConfig result;
  result.noise.timesteps = config.count("num_train_timesteps", 1000);
  if (starts_with(name, "FlowMatch")) {
    result.prediction = Prediction::kFlow;
    return result;
  }
  if (config.has("trained_betas")) config.fail("trained_betas", "is set, which is not supported");
  result.prediction = config.choice("prediction_type", kPredictions, "epsilon");
  result.noise.schedule = config.choice("beta_schedule", kSchedules, "linear");
  result.noise.beta_start = config.number("beta_start", 1e-4);
  result.noise.beta_end = config.number("beta_end", 0.02);
  result.noise.rescale_zero_terminal_snr = config.flag("rescale_betas_zero_snr");
  if (!(result.noise.beta_start > 0 && result.noise.beta_start <= result.noise.beta_end &&
        result.noise.beta_end < 1)) {
    config.fail("beta_start", "and 'beta_end' must satisfy 0 < beta_start <= beta_end < 1");
  }
  return result;
}

std::string scheduler_config_json(const NoiseOptions& noise, Prediction prediction) {
  Json json;
  json["num_train_timesteps"] = noise.timesteps;
  if (prediction == Prediction::kFlow) {
    json["_class_name"] = "FlowMatchEulerDiscreteScheduler";
    json["shift"] = 1.0;
    return json.dump(2) + "\n";
  }
  const bool is_ddim = noise.schedule != BetaSchedule::kSigmoid;
  const bool trails = noise.rescale_zero_terminal_snr && prediction != Prediction::kEpsilon;
  json["_class_name"] = is_ddim ? "DDIMScheduler" : "DDPMScheduler";
  json["beta_start"] = noise.beta_start;
  json["beta_end"] = noise.beta_end;
  json["beta_schedule"] = name_in(kSchedules, noise.schedule);
  json["trained_betas"] = nullptr;
  json["clip_sample"] = false;
  json["prediction_type"] = name_in(kPredictions, prediction);
  json["rescale_betas_zero_snr"] = noise.rescale_zero_terminal_snr;
  json["timestep_spacing"] = trails ? "trailing" : "leading";
  json["steps_offset"] = 1;
  if (is_ddim) json["set_alpha_to_one"] = false;
  return json.dump(2) + "\n";
}
}  // namespace trireme
