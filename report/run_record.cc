#include "report/run_record.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void add_line(MetricTable& table, const json& line) {
  const size_t row = table.steps.size();
  table.steps.push_back(line.value("step", 0.0));
  for (const auto& [name, value] : line.items()) {
    if (!value.is_number() || name == "step") continue;
    auto& column = table.columns[name];
    column.resize(row, kNan);  // Lines before it was there.
    column.push_back(value.get<double>());
  }
  for (auto& [name, column] : table.columns) column.resize(row + 1, kNan);
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

template <typename T>
std::vector<T> list_of(const json& line, const char* name) {
  std::vector<T> list;
  const auto found = line.find(name);
  if (found == line.end() || !found->is_array()) return list;
  for (const auto& value : *found) {
    if constexpr (std::is_same_v<T, double>) {
      list.push_back(value.is_number() ? value.get<double>() : kNan);
    } else {
      list.push_back(text_of(value));
    }
  }
  return list;
}

void add_times(RunRecord& run, const json& line) {
  run.phases.clear();
  const auto names = list_of<std::string>(line, "phases");
  const auto min = list_of<double>(line, "min_seconds");
  const auto mean = list_of<double>(line, "mean_seconds");
  const auto max = list_of<double>(line, "max_seconds");
  for (size_t i = 0; i < std::min({names.size(), min.size(), mean.size(), max.size()}); ++i) {
    run.phases.push_back({.name = names[i], .min = min[i], .mean = mean[i], .max = max[i]});
  }
  run.notes = list_of<std::string>(line, "notes");
  const auto wall = line.find("wall_seconds");
  run.wall_seconds = wall != line.end() && wall->is_number() ? wall->get<double>() : 0.0;
  const auto outcome = line.find("outcome");
  run.outcome = outcome != line.end() ? text_of(*outcome) : "";
}

void add_event(RunRecord& run, const json& line) {
  RunEvent event{.step = static_cast<int64_t>(line.value("step", 0.0)), .what = {}, .details = {}};
  for (const auto& [name, value] : line.items()) {
    if (name == "what") {
      event.what = text_of(value);
    } else if (name != "kind" && name != "step") {
      event.details.emplace_back(name, text_of(value));
    }
  }
  if (event.what == "start" || event.what == "resume") run.outcome.clear();  // It runs again.
  if (event.what == "diverged") run.outcome = "diverged";
  run.events.push_back(std::move(event));
}

void list_pictures(RunRecord& run) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run.folder / "samples", ignored)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view kStart = "step-";
    int64_t step = 0;
    if (!name.starts_with(kStart) || !name.ends_with(".png")) continue;
    const char* end = name.data() + name.size() - 4;
    const auto result = std::from_chars(name.data() + kStart.size(), end, step);
    if (result.ec == std::errc() && result.ptr == end)
      run.pictures.emplace_back(step, entry.path());
  }
  std::ranges::sort(run.pictures);
}
}  // namespace

const std::vector<double>& MetricTable::column(const std::string& name) const {
  static const std::vector<double> kNothing;
  const auto found = columns.find(name);
  return found == columns.end() ? kNothing : found->second;
}

int64_t RunRecord::last_step() const {
  return train.steps.empty() ? 0 : static_cast<int64_t>(train.steps.back());
}

std::vector<double> RunRecord::elapsed() const {
  std::vector<double> seconds = train.column("step_seconds");
  std::partial_sum(seconds.begin(), seconds.end(), seconds.begin(), [](double sum, double value) {
    return sum + (std::isfinite(value) ? value : 0.0);
  });
  return seconds;
}

RunRecord read_run(const fs::path& folder) {
  RunRecord run;
  run.folder = folder;
  std::ifstream file(folder / "metrics.jsonl");
  if (!file) {
    throw InputError(folder.string() +
                     " holds no metrics.jsonl that can be read: it is not a run directory, or its "
                     "run has not begun. Give the folder that run.dir or --run-dir named.");
  }
  for (std::string text; std::getline(file, text);) {
    const auto line = json::parse(text, nullptr, false);
    const auto kind = line.is_object() ? line.find("kind") : line.end();
    const auto step = line.is_object() ? line.find("step") : line.end();
    if (!line.is_object() || kind == line.end() || !kind->is_string() || step == line.end() ||
        !step->is_number()) {
      ++run.num_unreadable;
      continue;
    }
    if (*kind == "train") add_line(run.train, line);
    if (*kind == "eval") add_line(run.eval, line);
    if (*kind == "event")
      line.value("what", "") == "time" ? add_times(run, line) : add_event(run, line);
  }
  list_pictures(run);
  return run;
}
}  // namespace trireme
