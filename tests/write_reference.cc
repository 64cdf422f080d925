// Prints docs/reference.md: cmake --build build --target reference
#include <cmath>
#include <iostream>
#include <string>

#include "launcher/config_schema.h"
#include "report/metric_reference.h"

namespace {
using trireme::ConfigKey;

// Markdown ends a cell at a bar.
std::string cell(std::string text) {
  for (size_t at = text.find('|'); at != std::string::npos; at = text.find('|', at + 2))
    text.insert(at, "\\");
  return text;
}

std::string values_of(const ConfigKey& key) {
  if (key.choices.empty()) {
    const bool is_limited = std::isfinite(key.range.low) || std::isfinite(key.range.high);
    return cell(key.type_name() + (is_limited ? ", " + key.range.text() : ""));
  }
  std::string text;
  for (const auto choice : key.choices)
    text += (text.empty() ? "`" : ", `") + std::string(choice) + "`";
  return text;
}

std::string resume_of(const ConfigKey& key) {
  if (key.name == "run.steps" || key.name == "run.epochs") return "may grow";
  switch (key.trajectory) {
    case trireme::Trajectory::kTouches:
      return "fixed";
    case trireme::Trajectory::kFree:
      return "free";
    case trireme::Trajectory::kWithEarlyStopping:
      return "free without early stopping";
    case trireme::Trajectory::kWithScoredStopping:
      return "free unless a score stops the run";
  }
  return "";
}

void print_keys() {
  const trireme::Config defaults;
  std::string_view table;
  for (const ConfigKey& key : trireme::config_schema()) {
    if (key.table() != table) {
      table = key.table();
      std::cout << "\n### [" << table
                << "]\n\n| key | default | values | on resume |\n|---|---|---|---|\n";
    }
    const bool is_optional = key.presence == ConfigKey::Presence::kUnlessDefault;
    std::cout << "| `" << key.name << "` | "
              << (is_optional ? "–" : "`" + cell(trireme::toml_text(key.get(defaults))) + "`")
              << " | " << values_of(key) << " | " << resume_of(key) << " |\n";
  }
}

void print_metrics() {
  for (const std::string kind : {"train", "eval"}) {
    std::cout << "\n### `" << kind << "`\n\n| member | called | meaning |\n|---|---|---|\n";
    for (const auto& metric : trireme::metric_reference()) {
      if (metric.kind != kind) continue;
      std::cout << "| `" << metric.name << "` | " << metric.title << " | " << metric.meaning
                << " |\n";
    }
  }
}
}  // namespace

int main() {
  std::cout << "# Reference\n\nGenerated from the program's tables by "
               "`cmake --build build --target reference`; a test holds it to them.\n\n"
               "## Keys\n\nWhat each does, and where its default comes from: "
               "[config.md](config.md). A dash as default: the key is absent.\n";
  print_keys();
  std::cout << "\n## Metrics\n\nNumbers in lines of [metrics.jsonl](metrics.md), by the line's "
               "kind. A K stands for a number. Not every run has every one.\n";
  print_metrics();
  return 0;
}
