#pragma once
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "launcher/rank_placement.h"

namespace trireme {
class MpiEnvironment;

// RUN/provenance.jsonl: for each start of a run what was started, where and with what
// (docs/run_directory.md), and how it ended. One JSON object a line, appended.

// Set by `launch` for its ranks; recorded with a start and its end.
inline constexpr const char* kLaunchIdVariable = "TRIREME_LAUNCH_ID";

struct StartFacts {
  std::vector<std::string> command;  // argv of this rank.
  std::string device;                // Of this rank.
  RankPlacement placement;
  Machine machine;
  std::string resumed_from;  // Name of a checkpoint; empty: from the beginning.
  std::string config_sha256;
};
[[nodiscard]] std::vector<std::string> command_of_this_process();
// The line of a start, on rank 0; "" elsewhere. Collective: every rank tells of its host and
// device.
[[nodiscard]] std::string start_record(MpiEnvironment& mpi, const StartFacts& facts);
[[nodiscard]] std::string end_record(ExitCode code);
// Rank 0. UsageError where the run directory cannot be written.
void append_provenance(const std::filesystem::path& run_dir, const std::string& record);

// The code with which the start that bears this launch id ended; unset where that is not recorded.
[[nodiscard]] std::optional<ExitCode> recorded_end(const std::filesystem::path& run_dir,
                                                   const std::string& launch_id);

struct EarlierStart {
  std::filesystem::path working_directory;
  int num_ranks = 0;
  int num_nodes = 1;
  std::string device = {};  // "cpu", or the model of its GPUs; empty: not known, or of several.
  int cores_per_node = 0;   // Of the first host; 0: not recorded.
};
// The newest start recorded beside `config_file`, where that is the config.toml of a run directory.
[[nodiscard]] std::optional<EarlierStart> read_start_beside(
    const std::filesystem::path& config_file);
}  // namespace trireme
