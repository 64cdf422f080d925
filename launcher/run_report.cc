#include "launcher/run_report.h"

#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "data/file_attributes.h"
#include "launcher/config_file.h"
#include "launcher/config_schema.h"
#include "launcher/report_table.h"
#include "launcher/run_environment.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

std::vector<RunFacts::Key> keys_of(const Config& config) {
  static const Config kDefaults;
  std::vector<RunFacts::Key> keys;
  for (const ConfigKey& key : config_schema()) {
    const ConfigValue value = key.get(config);
    const ConfigValue usual = key.get(kDefaults);
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
  const RunEnvironment environment = read_run_environment(run.record);
  run.facts.environment = environment.rows;
  run.facts.environment_details = environment.details;
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
