#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "dist/mpi_environment.h"
#include "launcher/config_file.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/session.h"

namespace CLI {
class App;
}

namespace trireme {

// Which of a checkpoint's weights.
enum class CheckpointWeights { kTrained, kAveraged };

// What every verb that reads a CKPT takes.
struct CheckpointArguments {
  std::string checkpoint;        // A checkpoint, or a run directory for its newest whole one.
  std::vector<std::string> set;  // Overrides of the checkpoint's configuration.
};
// Adds CKPT and --set to a verb. `arguments` outlives the parsing.
void add_checkpoint_arguments(CLI::App& verb, CheckpointArguments& arguments);

struct OpenedCheckpoint {
  std::filesystem::path folder;
  CheckpointState state;
  Config config;  // The run's, with overrides.
  [[nodiscard]] bool has_average() const;
  // The model's folder, or its adapter's; for open_model(). Throws UsageError where there is no
  // average.
  [[nodiscard]] std::filesystem::path weights(CheckpointWeights which) const;
};
// Local. Throws InputError where the checkpoint is not whole, UsageError for a bad override.
[[nodiscard]] OpenedCheckpoint open_checkpoint(const CheckpointArguments& arguments, Verify verify);

// On all ranks, checksums checked by rank 0. Collective.
[[nodiscard]] OpenedCheckpoint open_checkpoint(MpiEnvironment& mpi,
                                               const CheckpointArguments& arguments);
}  // namespace trireme
