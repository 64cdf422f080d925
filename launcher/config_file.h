#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config.h"

namespace trireme {

// A configuration with where it came from.
struct LoadedConfig {
  Config config;
  std::filesystem::path file;
  std::vector<std::string> keys_set;  // "optim.lr", …: keys that the file or --set gave.
  [[nodiscard]] bool is_set(std::string_view key) const;
};

// Reads TOML, strictly: an unknown key, wrong type or value out of range is a UsageError naming
// file, line and the nearest valid key. `overrides` are "key.path=VALUE" of --set, VALUE being TOML
// or a bare string where a string belongs; `run_dir` replaces run.dir where it is not empty.
// Relative paths are those of the working directory. Local (file access by every rank).
[[nodiscard]] LoadedConfig load_config(const std::filesystem::path& file,
                                       const std::vector<std::string>& overrides = {},
                                       const std::string& run_dir = {});

// Every key with its value, valid TOML, in a fixed order: equal configurations give equal text.
[[nodiscard]] std::string write_config(const Config& config);

// Keys whose values differ in a way that changes the trajectory (docs/config.md marks those that do
// not). run.steps and run.epochs may only grow; that is reported by `growth`.
struct ConfigDifference {
  std::vector<std::string> keys;  // "optim.lr: 0.0001 here, 0.001 in RUN/config.toml"
  std::string growth;             // "run.steps grows from 2 to 3", or empty.
};
[[nodiscard]] ConfigDifference compare_for_resume(const Config& now, const Config& then);
}  // namespace trireme
