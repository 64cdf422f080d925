#include "launcher/run_report.h"

#include <fstream>
#include <set>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "data/file_attributes.h"
#include "launcher/config_file.h"
#include "launcher/config_schema.h"
#include "launcher/report_table.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

std::vector<RunFacts::Key> keys_of(const Config& config) {
  static const Config defaults;
  std::vector<RunFacts::Key> keys;
  for (const ConfigKey& key : config_schema()) {
    const ConfigValue value = key.get(config);
    const ConfigValue usual = key.get(defaults);
    const bool is_optional = key.presence == ConfigKey::Presence::kUnlessDefault;
    if (is_optional && value == usual) continue;
    keys.push_back({.name = std::string(key.name),
                    .value = toml_text(value),
                    .default_value = is_optional ? "not set" : toml_text(usual),
                    .is_default = value == usual});
  }
  return keys;
}

std::vector<RunFacts::Source> sources_of(const Config& config) {
  std::vector<RunFacts::Source> sources;
  std::set<std::string> seen;
  for (const auto* files : {&config.data.train, &config.data.validation}) {
    for (const auto& file : *files) {
      if (!seen.insert(file).second) continue;
      RunFacts::Source source{.file = file, .attributes = {}, .problem = {}};
      try {
        source.attributes = read_file_attributes(file);
      } catch (const std::exception& error) {
        source.problem = error.what();
      }
      sources.push_back(std::move(source));
    }
  }
  return sources;
}

// Every value of a JSON file with its path: "versions.mpi", "hosts.0".
void flatten(const json& value, const std::string& path, size_t depth,
             std::vector<std::pair<std::string, std::string>>& rows) {
  constexpr size_t kRowsMax = 400;
  if (rows.size() >= kRowsMax) return;
  const bool is_list = value.is_array() && !value.empty() && value.front().is_structured();
  if ((value.is_object() || is_list) && depth < 6) {
    for (const auto& [name, item] : value.items())
      flatten(item, path.empty() ? name : path + "." + name, depth + 1, rows);
    return;
  }
  rows.emplace_back(path, value.is_string()
                              ? value.get<std::string>()
                              : value.dump(-1, ' ', false, json::error_handler_t::replace));
}

// The last start as metrics.jsonl tells it, then as provenance.jsonl does where that is more.
std::vector<std::pair<std::string, std::string>> environment_of(const RunRecord& record) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const auto& event : record.events) {
    if (event.what == "start" || event.what == "resume") rows = event.details;
  }
  std::ifstream file(record.folder / "provenance.jsonl");
  json last;
  for (std::string line; std::getline(file, line);) {
    auto start = json::parse(line, nullptr, false);
    if (start.is_object() && start.value("kind", "") == "start") last = std::move(start);
  }
  if (!last.is_object()) return rows;
  rows.clear();
  last.erase("kind");
  flatten(last, "", 0, rows);
  return rows;
}

std::string summary_of(const Config& config, const RunRecord& record) {
  std::string text = config.model.weights.empty()
                         ? "From random weights (" + config.model.config + ")"
                         : "From " + config.model.weights;
  if (config.batch.global > 0) text += ", batches of " + format_count(config.batch.global);
  std::string ranks, hosts;  // Of the last start.
  for (const auto& event : record.events) {
    for (const auto& [name, value] : event.details) {
      if (name == "ranks") ranks = value;
      if (name == "hosts") hosts = value;
    }
  }
  if (!ranks.empty()) text += ", " + ranks + (ranks == "1" ? " rank on " : " ranks on ") + hosts;
  return text + ". " + record.folder.string();
}
}  // namespace

ReportedRun load_reported_run(const fs::path& folder) {
  ReportedRun run{.record = read_run(folder), .facts = {}};
  run.facts.name = folder.filename().string();
  try {
    const Config config = load_config(folder / "config.toml").config;
    run.facts.name = config.run.name;
    run.facts.summary = summary_of(config, run.record);
    run.facts.keys = keys_of(config);
    run.facts.data = sources_of(config);
  } catch (const Error& error) {
    // Another version's keys, say: the curves are worth showing all the same.
    run.facts.summary = std::string("The configuration cannot be shown: ") + error.what();
  }
  run.facts.environment = environment_of(run.record);
  return run;
}

void write_run_report(const fs::path& run_dir) noexcept {
  try {
    const fs::path file = run_dir / "report.html";
    write_text_file_atomically(file, run_page(load_reported_run(run_dir)));
    log::info("report " + file.string());
  } catch (const std::exception& error) {
    try {
      log::warn(std::string("no report was written: ") + error.what());
    } catch (...) {  // The run itself is done; nothing is left to tell by.
    }
  }
}
}  // namespace trireme
