#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "launcher/config_file.h"
#include "launcher/inspect.h"
#include "trainer/adapters/lora.h"
#include "trainer/checkpoint/checkpoint.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) entries.push_back(entry.path());
  std::ranges::sort(entries);
  return entries;
}

uint64_t folder_size_bytes(const fs::path& folder) {
  uint64_t size = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored) && !it->is_symlink(ignored)) size += it->file_size(ignored);
  }
  return size;
}

// metrics.jsonl: how many lines of which kind, and what the last ones say.
void report_metrics(const fs::path& file, InspectDepth depth, ReportTable& table) {
  std::ifstream in(file);
  if (!in) {
    table.row("metrics", "none");
    return;
  }
  int64_t num_lines = 0;
  nlohmann::json last_train, last_eval;
  for (std::string line; std::getline(in, line);) {
    ++num_lines;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_discarded() || !json.is_object()) {
      if (depth == InspectDepth::kHeaders) continue;
      throw InputError(
          file.string() + ":" + std::to_string(num_lines) +
          " is not a JSON object. A run that resumes from a checkpoint cuts the file there.");
    }
    const auto kind = json.value("kind", nlohmann::json());
    if (kind == "train") last_train = json;
    if (kind == "eval") last_eval = json;
  }
  table.row("metrics", format_plural(num_lines, "line"));
  for (const auto& [name, json] :
       {std::pair("last train", last_train), std::pair("last eval", last_eval)}) {
    if (json.is_object())
      table.row(name,
                one_line(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), 400));
  }
}

void report_checkpoint(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  const auto verify = depth == InspectDepth::kHeaders ? Verify::kSizes : Verify::kChecksums;
  const CheckpointState state = open_checkpoint(folder, verify);
  table.row(folder.filename().string(),
            "step " + format_count(state.step) + ", " + format_count(state.samples) + " samples, " +
                format_bytes(folder_size_bytes(folder)) +
                (depth == InspectDepth::kHeaders ? ", whole" : ", whole, all checksums agree"));
}
}  // namespace

void inspect_checkpoint(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  table.heading("checkpoint " + folder.string());
  const auto verify = depth == InspectDepth::kHeaders ? Verify::kSizes : Verify::kChecksums;
  const CheckpointState state = open_checkpoint(folder, verify);
  table.row("step", format_count(state.step));
  table.row("samples", format_count(state.samples));
  if (state.evaluations > 0) {
    table.row("evaluations", format_count(state.evaluations) + ", best " +
                                 format_number(state.best_metric) + ", " +
                                 format_count(state.evaluations_without_improvement) + " since");
  }
  if (depth == InspectDepth::kEveryByte)
    table.row("verified", "every file has its size and checksum");
  for (const auto& entry : entries_of(folder)) {
    if (fs::is_directory(entry)) {
      table.row(entry.filename().string() + "/", format_bytes(folder_size_bytes(entry)));
    } else if (fs::is_regular_file(entry)) {
      table.row(entry.filename().string(), format_bytes(fs::file_size(entry)));
    }
  }
  for (const char* part : {"unet", "transformer", "adapter", "ema"}) {
    if (fs::exists(folder / part / "config.json")) {
      table.heading(part);
      inspect_diffusers_folder(folder / part, depth, table);
    } else if (fs::exists(folder / part / kLoraWeightsFile)) {
      inspect_adapter(folder / part, depth, table);
    }
  }
}

void inspect_run(const fs::path& folder, InspectDepth depth, ReportTable& table) {
  const Config config = load_config(folder / "config.toml").config;
  table.heading("run " + folder.string());
  table.row("name", one_line(config.run.name));
  table.row("seed", std::to_string(config.run.seed));
  table.row("length", config.run.steps > 0 ? format_count(config.run.steps) + " steps"
                                           : format_number(config.run.epochs) + " epochs");
  report_metrics(folder / "metrics.jsonl", depth, table);
  table.heading("checkpoints");
  std::string first_failure;
  for (const auto& entry : entries_of(folder / "checkpoints")) {
    const std::string name = entry.filename().string();
    if (fs::is_symlink(entry)) {
      table.row(name, "-> " + fs::read_symlink(entry).string());
    } else if (name.starts_with("step-")) {
      try {
        report_checkpoint(entry, depth, table);
      } catch (const InputError& error) {
        table.row(name, std::string("WRONG: ") + error.what());
        if (first_failure.empty()) first_failure = error.what();
      }
    }
  }
  if (!first_failure.empty()) throw InputError(first_failure);
}
}  // namespace trireme
