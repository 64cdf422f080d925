#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "launcher/checkpoint_arguments.h"
#include "launcher/export_formats.h"
#include "launcher/verbs.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

struct ExportArguments {
  CheckpointArguments checkpoint;
  std::string format;
  std::string out;
  CheckpointWeights weights = CheckpointWeights::kTrained;
};

enum class OutKind { kFolder, kFile };

struct ExportFormat {
  std::string_view name;
  OutKind kind;
  void (*write)(const OpenedCheckpoint&, CheckpointWeights, const fs::path&);
};

constexpr std::array<ExportFormat, 4> kFormats = {{
    {"diffusers", OutKind::kFolder, write_diffusers},
    {"lora-peft", OutKind::kFolder, write_lora_peft},
    {"lora-kohya", OutKind::kFile, write_lora_kohya},
    {"single-file", OutKind::kFile, write_single_file},
}};

const ExportFormat& find_format(const std::string& name) {
  // The command line knows no others.
  return *std::ranges::find(kFormats, name, &ExportFormat::name);
}

fs::path without_trailing_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

int run_export(const ExportArguments& arguments) {
  const ExportFormat& format = find_format(arguments.format);
  const fs::path out = without_trailing_slash(arguments.out);
  if (fs::exists(fs::symlink_status(out))) {
    throw UsageError("--out " + out.string() +
                     " exists already. Choose another place or remove it first.");
  }
  const OpenedCheckpoint checkpoint = open_checkpoint(arguments.checkpoint, Verify::kChecksums);
  const fs::path unfinished = out.parent_path() / ("." + out.filename().string() + ".trireme-tmp");
  const auto clean = [&] {
    std::error_code ignored;
    fs::remove_all(unfinished, ignored);
  };
  try {
    clean();
    fs::create_directories(format.kind == OutKind::kFolder ? unfinished
                                                           : fs::absolute(out).parent_path());
    format.write(checkpoint, arguments.weights, unfinished);
    fs::rename(unfinished, out);
  } catch (const fs::filesystem_error& error) {
    clean();
    throw UsageError("cannot write the export to " + out.string() + ": " + error.code().message() +
                     " (" + error.path1().string() +
                     "). Choose a place that can be written and has space.");
  } catch (...) {
    clean();
    throw;
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
  verb->add_option(
          "--format", arguments->format,
          "diffusers: a folder, with all of the pipeline where the base has it, an adapter "
          "merged; lora-peft: a folder with pytorch_lora_weights.safetensors; lora-kohya, "
          "single-file: a .safetensors file")
      ->required()
      ->check(CLI::IsMember({"diffusers", "lora-peft", "lora-kohya", "single-file"}));
  verb->add_option("--out", arguments->out, "Folder or file to write; must not exist")->required();
  verb->add_flag_callback(
      "--ema", [arguments] { arguments->weights = CheckpointWeights::kAveraged; },
      "Export the averaged weights");
  verb->footer(
      "Examples:\n  trireme export runs/emoji/checkpoints/latest --format diffusers --out "
      "emoji-model\n  trireme export runs/style --format lora-kohya --out style.safetensors");
  verb->callback([arguments, &action] { action = [arguments] { return run_export(*arguments); }; });
}
}  // namespace trireme
