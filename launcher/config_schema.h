#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trainer/config.h"

namespace trireme {

// The value of a key as TOML has it; an enumerator is its name.
using ConfigValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>,
                                 std::array<double, 2>, std::map<std::string, double>,
                                 std::vector<int64_t>, std::vector<double>>;

// Which values a number may take. Always finite.
struct ConfigRange {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  enum class Ends { kBothIn, kLowOut, kHighOut, kBothOut } ends = Ends::kBothIn;
  [[nodiscard]] bool contains(double value) const noexcept;
  [[nodiscard]] std::string text() const;  // "at least 1", "in [0, 1)"
};

// Whether a run may go on with another value (docs/config.md, "Resuming").
enum class Trajectory {
  kTouches,             // It decides the weights.
  kFree,                // It does not.
  kWithEarlyStopping,   // It does where early_stopping.patience > 0.
  kWithScoredStopping,  // It does where that watches one of scores.metrics.
};

// One key of the configuration: reading, writing and comparing all go through this table.
struct ConfigKey {
  std::string_view name = {};  // "optim.lr"
  Trajectory trajectory = Trajectory::kTouches;
  ConfigRange range = {};                      // Of numbers.
  std::vector<std::string_view> choices = {};  // Of strings; empty: any.
  enum class Presence { kAlways, kUnlessDefault } presence = Presence::kAlways;  // When written.
  ConfigValue (*get)(const Config&) = nullptr;
  void (*set)(Config&, const ConfigValue&) = nullptr;  // REQUIRES: the alternative get() returns.

  [[nodiscard]] std::string_view table() const { return name.substr(0, name.find('.')); }
  [[nodiscard]] std::string_view leaf() const { return name.substr(name.find('.') + 1); }
  [[nodiscard]] std::string type_name() const;  // "an integer", "one of …"
};

// Every key, tables together, in the order in which they are written.
[[nodiscard]] const std::vector<ConfigKey>& config_schema();

// nullptr where `name` is no key.
[[nodiscard]] const ConfigKey* find_config_key(std::string_view name);

// The value as TOML text: strings quoted, floats shortest that read back to the same value.
[[nodiscard]] std::string toml_text(const ConfigValue& value);
}  // namespace trireme
