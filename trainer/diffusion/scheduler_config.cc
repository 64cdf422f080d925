#include "trainer/diffusion/scheduler_config.h"

#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "trainer/diffusion/noise_schedule.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
using Json = nlohmann::json;

constexpr std::array<std::pair<BetaSchedule, const char*>, 6> kSchedules = {{
    {BetaSchedule::kLinear, "linear"},
    {BetaSchedule::kScaledLinear, "scaled_linear"},
    {BetaSchedule::kSquaredCosCapV2, "squaredcos_cap_v2"},
    {BetaSchedule::kSigmoid, "sigmoid"},
    {BetaSchedule::kExp, "exp"},
    {BetaSchedule::kLaplace, "laplace"},
}};
// DPM-Solver and UniPC call it flow_prediction.
constexpr std::array<std::pair<Prediction, const char*>, 4> kPredictions = {{
    {Prediction::kEpsilon, "epsilon"},
    {Prediction::kVPrediction, "v_prediction"},
    {Prediction::kSample, "sample"},
    {Prediction::kFlow, "flow_prediction"},
}};

constexpr std::array<std::pair<TimestepSpacing, const char*>, 3> kSpacings = {{
    {TimestepSpacing::kLeading, "leading"},
    {TimestepSpacing::kLinspace, "linspace"},
    {TimestepSpacing::kTrailing, "trailing"},
}};
constexpr std::array<std::pair<SamplingRules::FinalSigma, const char*>, 2> kFinalSigmas = {{
    {SamplingRules::FinalSigma::kZero, "zero"},
    {SamplingRules::FinalSigma::kSigmaMin, "sigma_min"},
}};
// The logarithmic form of the small one is the same number.
constexpr std::array<std::pair<SamplingRules::Variance, const char*>, 3> kVariances = {{
    {SamplingRules::Variance::kFixedSmall, "fixed_small"},
    {SamplingRules::Variance::kFixedLarge, "fixed_large"},
    {SamplingRules::Variance::kFixedSmall, "fixed_small_log"},
}};

template <typename Table, typename Value>
std::string name_in(const Table& table, Value value) {
  for (const auto& [known, name] : table) {
    if (known == value) return name;
  }
  throw InternalError("a value without a name");
}

// Python's json writes what JSON has not, such as -Infinity for lambda_min_clipped: null instead.
std::string without_infinities(const std::string& text) {
  std::string result;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"' && (i == 0 || text[i - 1] != '\\')) in_string = !in_string;
    size_t length = 0;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (!in_string && length == 0 && text.compare(i, word.size(), word) == 0)
        length = word.size();
    }
    result += length > 0 ? "null" : text.substr(i, 1);
    if (length > 0) i += length - 1;
  }
  return result;
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
  // In (0, 1) each; empty where the key is absent.
  [[nodiscard]] std::vector<double> betas(const std::string& key, int64_t count) const {
    std::vector<double> values;
    if (!has(key)) return values;
    if (!json_.at(key).is_array()) fail(key, "must be a list of numbers");
    for (const auto& item : json_.at(key)) {
      if (!item.is_number() || !(item.get<double>() > 0 && item.get<double>() < 1)) {
        fail(key, "must hold numbers between 0 and 1");
      }
      values.push_back(item.get<double>());
    }
    if (static_cast<int64_t>(values.size()) != count) {
      fail(key, "has " + std::to_string(values.size()) + " numbers, but num_train_timesteps is " +
                    std::to_string(count));
    }
    return values;
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
// nullopt where the file has no such key.
template <typename Table>
auto optional_choice(const ConfigReader& config, const std::string& key, const Table& table)
    -> std::optional<decltype(table[0].first)> {
  if (!config.has(key)) return std::nullopt;
  return config.choice(key, table, "");
}

std::optional<bool> optional_flag(const ConfigReader& config, const std::string& key) {
  return config.has(key) ? std::optional(config.flag(key)) : std::nullopt;
}

SamplingRules read_sampling_rules(const ConfigReader& config) {
  if (config.flag("use_dynamic_shifting")) {
    config.fail("use_dynamic_shifting", "is set, which is not supported");
  }
  SamplingRules rules{
      .timestep_spacing = optional_choice(config, "timestep_spacing", kSpacings),
      .steps_offset = {},
      .set_alpha_to_one = optional_flag(config, "set_alpha_to_one"),
      .use_karras_sigmas = optional_flag(config, "use_karras_sigmas"),
      .final_sigmas_type = optional_choice(config, "final_sigmas_type", kFinalSigmas),
      .variance_type = optional_choice(config, "variance_type", kVariances),
      .shift = {}};
  if (config.has("steps_offset")) {
    const double offset = config.number("steps_offset", 0);
    if (!(offset >= 0 && offset <= 1e6)) config.fail("steps_offset", "must be in 0 ... 1000000");
    rules.steps_offset = static_cast<int64_t>(offset);
  }
  for (const char* key : {"shift", "flow_shift"}) {
    if (!config.has(key)) continue;
    rules.shift = config.number(key, 1.0);
    if (!(*rules.shift > 0 && *rules.shift < 1e6)) config.fail(key, "must be greater than 0");
  }
  return rules;
}

void write_sampling_rules(const SamplingRules& rules, Json& json) {
  if (rules.timestep_spacing)
    json["timestep_spacing"] = name_in(kSpacings, *rules.timestep_spacing);
  if (rules.steps_offset) json["steps_offset"] = *rules.steps_offset;
  if (rules.set_alpha_to_one) json["set_alpha_to_one"] = *rules.set_alpha_to_one;
  if (rules.use_karras_sigmas) json["use_karras_sigmas"] = *rules.use_karras_sigmas;
  if (rules.final_sigmas_type) {
    json["final_sigmas_type"] = name_in(kFinalSigmas, *rules.final_sigmas_type);
  }
  if (rules.variance_type) json["variance_type"] = name_in(kVariances, *rules.variance_type);
}
}  // namespace

std::optional<SchedulerConfig> read_scheduler_config(const std::filesystem::path& folder) {
  const auto file = folder / "scheduler_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  const ConfigReader config(
      parse_json_object(without_infinities(read_text_file(file, "scheduler configuration")), file,
                        "scheduler configuration"),
      file);
  const std::string name = config.text("_class_name", "DDPMScheduler");
  refuse_other_processes(config, name);

  SchedulerConfig result;
  result.sampling = read_sampling_rules(config);
  result.noise.timesteps = config.count("num_train_timesteps", 1000);
  if (starts_with(name, "FlowMatch")) {
    result.prediction = Prediction::kFlow;
    return result;
  }
  result.noise.trained_betas = config.betas("trained_betas", result.noise.timesteps);
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

std::string name_of(Prediction prediction) {
  return prediction == Prediction::kFlow ? "flow" : name_in(kPredictions, prediction);
}

std::string name_of(BetaSchedule schedule) { return name_in(kSchedules, schedule); }

std::string scheduler_config_json(const NoiseOptions& noise, Prediction prediction,
                                  const SamplingRules& sampling) {
  Json json;
  json["num_train_timesteps"] = noise.timesteps;
  if (prediction == Prediction::kFlow) {
    json["_class_name"] = "FlowMatchEulerDiscreteScheduler";
    json["shift"] = sampling.shift.value_or(1.0);
    return json.dump(2) + "\n";
  }
  // What diffusers' DDIM lacks: sigmoid and laplace are DDPM's, exp is written out.
  NoiseOptions written = noise;
  if (noise.schedule == BetaSchedule::kExp && noise.trained_betas.empty()) {
    written.rescale_zero_terminal_snr = false;  // Which the reader does again.
    written.trained_betas = NoiseSchedule(written).betas();
    written.schedule = BetaSchedule::kLinear;
  }
  const bool is_ddim =
      !written.trained_betas.empty() ||
      (noise.schedule != BetaSchedule::kSigmoid && noise.schedule != BetaSchedule::kLaplace);
  json["_class_name"] = is_ddim ? "DDIMScheduler" : "DDPMScheduler";
  json["beta_start"] = noise.beta_start;
  json["beta_end"] = noise.beta_end;
  json["beta_schedule"] = name_in(kSchedules, written.schedule);
  json["trained_betas"] =
      written.trained_betas.empty() ? Json(nullptr) : Json(written.trained_betas);
  json["clip_sample"] = false;
  json["prediction_type"] = name_in(kPredictions, prediction);
  json["rescale_betas_zero_snr"] = noise.rescale_zero_terminal_snr;
  write_sampling_rules(sampling, json);
  return json.dump(2) + "\n";
}
}  // namespace trireme
