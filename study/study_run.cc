#include "study/study_run.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <system_error>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "study/statistics.h"
#include "trainer/metric_watch.h"

namespace trireme {
namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kDivergedRatio = 2.0;
constexpr std::array<std::string_view, 4> kStateNames = {"absent", "unfinished", "finished",
                                                         "diverged"};

double number_of(const nlohmann::json& line, const std::string& key, double fallback) {
  const auto found = line.find(key);
  if (found == line.end()) return fallback;
  return found->is_number() ? found->get<double>() : kNaN;
}

struct Medians {
  std::vector<double> rate, exposed, data, seconds;
};

void add_line(const nlohmann::json& line, const std::string& metric, StudyRun& record,
              Medians& medians) {
  const std::string kind = line.value("kind", "");
  if (kind == "train") {
    record.steps.push_back({.samples = number_of(line, "samples", kNaN) -
                                       static_cast<double>(record.spec.start.samples),
                            .loss = number_of(line, "loss", kNaN),
                            .noise_scale = number_of(line, "noise_scale", 0.0)});
    medians.rate.push_back(number_of(line, "images_per_second", 0.0));
    medians.exposed.push_back(number_of(line, "comm_exposed_seconds", 0.0));
    medians.data.push_back(number_of(line, "data_seconds", 0.0));
    medians.seconds.push_back(number_of(line, "step_seconds", 0.0));
  } else if (kind == "eval") {
    record.evaluated.clear();
    for (const auto& [name, value] : line.items()) {
      if (name != "kind" && name != "step") record.evaluated.push_back(name);
    }
    if (!line.contains(metric)) return;
    const double step = number_of(line, "step", 0.0) - static_cast<double>(record.spec.start.step);
    record.evaluations.push_back({.samples = step * static_cast<double>(record.spec.batch),
                                  .value = number_of(line, metric, kNaN)});
  }
}

double median_of(const std::vector<double>& values) {
  return values.empty() ? 0.0 : quantile_of(values, 0.5);
}

StudyRun::State read_state(const std::filesystem::path& run_dir) {
  std::error_code error;
  if (!std::filesystem::exists(run_dir / "metrics.jsonl", error)) return StudyRun::State::kAbsent;
  const auto file = run_dir / "study.json";
  if (!std::filesystem::exists(file, error)) return StudyRun::State::kUnfinished;
  const auto json = nlohmann::json::parse(read_text_file(file, "state of a run"), nullptr, false);
  const auto state = json.is_object() ? json.find("state") : json.end();
  if (state == json.end() || !state->is_string()) return StudyRun::State::kUnfinished;
  const auto found = std::ranges::find(kStateNames, state->get<std::string>());
  if (found == kStateNames.end()) return StudyRun::State::kUnfinished;
  return static_cast<StudyRun::State>(found - kStateNames.begin());
}
}  // namespace

std::optional<double> StudyRun::final_value() const {
  if (evaluations.empty() || !std::isfinite(evaluations.back().value)) return std::nullopt;
  return evaluations.back().value;
}

std::optional<double> StudyRun::finished_value() const {
  return state == State::kFinished ? final_value() : std::nullopt;
}

bool StudyRun::starts_at(double target) const {
  return !evaluations.empty() && evaluations.front().samples == 0.0 &&
         sign * evaluations.front().value <= sign * target;
}

std::optional<double> StudyRun::samples_to(double target) const {
  if (starts_at(target)) return std::nullopt;
  for (size_t i = 0; i < evaluations.size(); ++i) {
    const auto& now = evaluations[i];
    if (!(sign * now.value <= sign * target)) continue;
    if (i == 0) return now.samples;
    const auto& before = evaluations[i - 1];
    if (!std::isfinite(before.value) || before.value == now.value) return now.samples;
    const double share = (before.value - target) / (before.value - now.value);
    return before.samples + share * (now.samples - before.samples);
  }
  return std::nullopt;
}

void write_state(const std::filesystem::path& run_dir, StudyRun::State state) {
  const nlohmann::json json = {{"state", state_name(state)}};
  write_text_file_atomically(run_dir / "study.json", json.dump() + "\n");
}

StudyRun read_study_run(const std::filesystem::path& run_dir, const RunSpec& spec,
                        const std::string& metric) {
  StudyRun record;
  record.spec = spec;
  record.sign = metric_sign(metric);
  record.state = read_state(run_dir);
  if (record.state == StudyRun::State::kAbsent) return record;
  const auto file = run_dir / "metrics.jsonl";
  const std::string text = read_text_file(file, "metrics", uint64_t{1} << 30);
  Medians medians;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // Cut short: being written, or killed while it was.
    ++number;
    const auto line =
        nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                              text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (!line.is_object()) {
      throw InputError(file.string() + ":" + std::to_string(number) +
                       ": not a JSON object. Remove the run's folder, or this line.");
    }
    add_line(line, metric, record, medians);
    begin = end + 1;
  }
  record.images_per_second = median_of(medians.rate);
  record.comm_exposed_seconds = median_of(medians.exposed);
  record.data_seconds = median_of(medians.data);
  record.step_seconds = median_of(medians.seconds);
  return record;
}

bool looks_diverged(const StudyRun& record) {
  if (record.evaluations.size() < 2) return false;
  const double first = record.evaluations.front().value;
  const double last = record.evaluations.back().value;
  if (record.sign < 0.0 || first <= 0.0) return !std::isfinite(last);
  return !(last <= kDivergedRatio * first);
}

std::string_view state_name(StudyRun::State state) {
  return kStateNames.at(static_cast<size_t>(state));
}
}  // namespace trireme
