#include <algorithm>
#include <string>

#include "core/error.h"
#include "launcher/config_file.h"
#include "launcher/config_schema.h"

namespace trireme {
namespace {
bool stops_by_score(const Config& config) {
  return config.early_stopping.patience > 0 &&
         std::ranges::find(config.scores.metrics, config.early_stopping.metric) !=
             config.scores.metrics.end();
}

bool touches(const ConfigKey& key, const Config& now, const Config& then) {
  switch (key.trajectory) {
    case Trajectory::kTouches:
      return true;
    case Trajectory::kFree:
      return false;
    case Trajectory::kWithEarlyStopping:
      return now.early_stopping.patience > 0 || then.early_stopping.patience > 0;
    case Trajectory::kWithScoredStopping:
      return stops_by_score(now) || stops_by_score(then);
  }
  throw InternalError("a key of the configuration without trajectory: " + std::string(key.name));
}

// steps and epochs may grow, if both configurations give the same one of them.
bool grows(std::string_view key, const Config& now, const Config& then) {
  if (key == "run.steps") return then.run.steps > 0 && now.run.steps > then.run.steps;
  if (key == "run.epochs") return then.run.epochs > 0 && now.run.epochs > then.run.epochs;
  return false;
}

// An absent key of an exclusive pair has no value to show.
std::string shown(const ConfigKey& key, const Config& config) {
  static const Config kDefaults;
  const ConfigValue value = key.get(config);
  const bool absent =
      key.presence == ConfigKey::Presence::kUnlessDefault && value == key.get(kDefaults);
  return absent ? "not set" : toml_text(value);
}
}  // namespace

std::string write_config(const Config& config) {
  static const Config kDefaults;
  std::string text = "# Every key with its value; a CONFIG in its own right.\n";
  std::string_view table;
  for (const ConfigKey& key : config_schema()) {
    if (key.table() != table) {
      table = key.table();
      text += "\n[" + std::string(table) + "]\n";
    }
    const ConfigValue value = key.get(config);
    if (key.presence == ConfigKey::Presence::kUnlessDefault && value == key.get(kDefaults)) {
      continue;
    }
    text += std::string(key.leaf()) + " = " + toml_text(value) + "\n";
  }
  return text;
}

ConfigDifference compare_for_resume(const Config& now, const Config& then) {
  ConfigDifference difference;
  for (const ConfigKey& key : config_schema()) {
    if (key.get(now) == key.get(then) || !touches(key, now, then)) continue;
    if (grows(key.name, now, then)) {
      difference.growth =
          std::string(key.name) + " grows from " + shown(key, then) + " to " + shown(key, now);
      continue;
    }
    difference.keys.push_back(std::string(key.name) + ": " + shown(key, now) + " here, " +
                              shown(key, then) + " in the run's config.toml");
  }
  return difference;
}
}  // namespace trireme
