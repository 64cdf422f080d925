#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "launcher/checkpoint_arguments.h"
#include "launcher/verbs.h"
#include "trainer/models/json_file.h"
#include "trainer/pipeline_folder.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

struct ExportArguments {
  CheckpointArguments checkpoint;
  std::string format;
  std::string out;
  CheckpointWeights weights = CheckpointWeights::kTrained;
};

void check_format(const std::string& format) {
  if (format == "diffusers") return;
  if (format == "lora-peft" || format == "lora-kohya") {
    throw UsageError("--format " + format +
                     " exports an adapter, and this checkpoint has none: its run trained the "
                     "weights themselves. Use "
                     "--format diffusers.");
  }
  throw UsageError("--format single-file is not supported yet. Use --format diffusers.");
}

void copy_synced(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  fs::copy(from, to, fs::copy_options::recursive);
  for (const auto& entry : fs::recursive_directory_iterator(to)) {
    if (entry.is_regular_file()) File::open_for_reading(entry.path(), "copy").sync();
    if (entry.is_directory()) sync_folder(entry.path());
  }
  sync_folder(to);
}

// The diffusers folder that the run started from, where it is still there.
std::optional<fs::path> base_folder(const Config& config) {
  for (const char* part : {"vae", "text_encoder", "tokenizer"}) {
    if (const auto folder = pipeline_part(config.model.weights, part)) {
      if (fs::exists(folder->parent_path() / "model_index.json")) return folder->parent_path();
    }
  }
  return std::nullopt;
}

bool is_part(const nlohmann::json& value) {
  return value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
}

// Copies the other parts of the pipeline, and model_index.json with the checkpoint's scheduler.
void copy_pipeline(const fs::path& base, const fs::path& model_folder, const fs::path& out) {
  nlohmann::json index = read_json_object(base / "model_index.json", "pipeline index");
  const fs::path scheduler = out / "scheduler" / "scheduler_config.json";
  for (auto& [name, value] : index.items()) {
    if (!is_part(value) || name == model_folder.string()) continue;
    const bool plain = fs::path(name) == fs::path(name).filename() && name != "." && name != "..";
    if (name == "scheduler" && fs::exists(scheduler)) {
      const auto config = read_json_object(scheduler, "scheduler configuration");
      if (config.contains("_class_name")) value = {"diffusers", config["_class_name"]};
    } else if (plain && fs::is_directory(base / name)) {
      copy_synced(base / name, out / name);
    } else {
      value = {nullptr, nullptr};
    }
  }
  write_text_file_atomically(out / "model_index.json", index.dump(2) + "\n");
}

void write_diffusers(const OpenedCheckpoint& checkpoint, CheckpointWeights which,
                     const fs::path& out) {
  const fs::path weights = checkpoint.weights(which);
  const fs::path model_folder = checkpoint.weights(CheckpointWeights::kTrained).filename();
  copy_synced(weights, out / model_folder);
  if (fs::exists(checkpoint.folder / "scheduler"))
    copy_synced(checkpoint.folder / "scheduler", out / "scheduler");
  if (const auto base = base_folder(checkpoint.config)) {
    copy_pipeline(*base, model_folder, out);
  } else {
    log::warn("only " + model_folder.string() +
              "/ is exported: no diffusers folder with a model_index.json was found "
              "in or beside model.weights = '" +
              checkpoint.config.model.weights + "'");
  }
  sync_folder(out);
}

fs::path without_trailing_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

int run_export(const ExportArguments& arguments) {
  check_format(arguments.format);
  const fs::path out = without_trailing_slash(arguments.out);
  if (fs::exists(fs::symlink_status(out))) {
    throw UsageError("--out " + out.string() +
                     " exists already. Choose another place or remove it first.");
  }
  const OpenedCheckpoint checkpoint = open_checkpoint(arguments.checkpoint, Verify::kChecksums);
  const fs::path unfinished = out.parent_path() / ("." + out.filename().string() + ".trireme-tmp");
  try {
    fs::remove_all(unfinished);
    fs::create_directories(unfinished);
    write_diffusers(checkpoint, arguments.weights, unfinished);
    fs::rename(unfinished, out);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(unfinished, ignored);
    throw UsageError("cannot write the export to " + out.string() + ": " + error.code().message() +
                     " (" + error.path1().string() +
                     "). Choose a place that can be written and has space.");
  }
  std::cout << out.string() << " holds step " << checkpoint.state.step << " of "
            << checkpoint.folder.string() << "\n";
  return static_cast<int>(ExitCode::kDone);
}
}  // namespace

void add_export_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<ExportArguments>();
  auto* verb = app.add_subcommand("export", "Convert a checkpoint for other programs");
  add_checkpoint_arguments(*verb, arguments->checkpoint);
  verb->add_option("--format", arguments->format,
                   "diffusers: a folder, with all of the pipeline where the base has it")
      ->required()
      ->check(CLI::IsMember({"diffusers", "lora-peft", "lora-kohya", "single-file"}));
  verb->add_option("--out", arguments->out, "Folder to write; must not exist")->required();
  verb->add_flag_callback(
      "--ema", [arguments] { arguments->weights = CheckpointWeights::kAveraged; },
      "Export the averaged weights");
  verb->footer(
      "Example:\n  trireme export runs/emoji/checkpoints/latest --format diffusers --out "
      "emoji-model");
  verb->callback([arguments, &action] { action = [arguments] { return run_export(*arguments); }; });
}
}  // namespace trireme
