#include "launcher/checkpoint_arguments.h"

#include <CLI/CLI.hpp>

#include "core/error.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The checkpoint that a run directory, or its checkpoints folder, stands for.
fs::path find_checkpoint(const fs::path& given) {
  if (is_there(given / "manifest.json")) return given;
  const fs::path inside = is_there(given / "checkpoints") ? given / "checkpoints" : given;
  if (const auto newest = newest_checkpoint(inside)) return *newest;
  throw InputError(given.string() +
                   (is_there(given) ? " holds no whole checkpoint" : " does not exist") +
                   ". Give a folder such as RUN/checkpoints/latest, or a run directory.");
}
}  // namespace

void add_checkpoint_arguments(CLI::App& verb, CheckpointArguments& arguments) {
  verb.add_option("CKPT", arguments.checkpoint, "Checkpoint, or a run directory for its newest one")
      ->required();
  verb.add_option("--set", arguments.set,
                  "Overrides a key of the checkpoint's configuration; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

bool OpenedCheckpoint::has_average() const { return is_there(folder / "ema"); }

fs::path OpenedCheckpoint::weights(CheckpointWeights which) const {
  if (which == CheckpointWeights::kAveraged) {
    if (has_average()) return folder / "ema";
    throw UsageError("the checkpoint " + folder.string() +
                     " holds no averaged weights: its run had ema.decay = 0. Leave --ema away.");
  }
  for (const char* part : {"transformer", "adapter"}) {
    if (is_there(folder / part)) return folder / part;
  }
  return folder / "unet";
}

OpenedCheckpoint open_checkpoint(const CheckpointArguments& arguments, Verify verify) {
  OpenedCheckpoint opened;
  opened.folder = find_checkpoint(arguments.checkpoint);
  opened.state = open_checkpoint(opened.folder, verify);
  opened.config = load_config(opened.folder / "config.toml", arguments.set).config;
  return opened;
}

OpenedCheckpoint open_checkpoint(MpiEnvironment& mpi, const CheckpointArguments& arguments) {
  OpenedCheckpoint opened;
  std::string folder;
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() == 0) folder = find_checkpoint(arguments.checkpoint).string();
  });
  mpi.broadcast_string(folder);  // All ranks read the one that rank 0 found.
  mpi.run_on_all_ranks([&] {
    opened = open_checkpoint({.checkpoint = folder, .set = arguments.set},
                             mpi.rank() == 0 ? Verify::kChecksums : Verify::kSizes);
  });
  return opened;
}
}  // namespace trireme
