#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "launcher/topology.h"

namespace trireme {
class MpiEnvironment;

// What `trireme doctor` looks at (docs/launching.md).

enum class Health { kOk, kWarn, kFail };
struct Finding {
  std::string check;
  Health health = Health::kOk;
  std::string found;
  std::string cure;  // A command, or what to do; empty where all is well.
};
using Findings = std::vector<Finding>;

// Versions of "4.1.4" order as numbers do; what is not a number ends one.
[[nodiscard]] bool is_older(const std::string& version, const std::string& than);

// Of an MPI and a PMIx library by their versions: those known to be bad.
[[nodiscard]] Findings judge_mpi(const std::string& mpi, const std::string& pmix);
// Of a CUDA runtime and the newest CUDA that the driver serves (empty: no driver).
[[nodiscard]] Finding judge_driver(const std::string& runtime, const std::string& driver);

// This process's host, each rank for itself: compilers, libraries, GPUs, Slurm, limits, binding.
// Local.
[[nodiscard]] Findings examine_host(const Machine& machine);
// What ranks can find out together only: thread level, clocks, the file system under `folder`, a
// 64 MiB all-reduce. Every rank returns what concerns it. Collective.
[[nodiscard]] Findings examine_ranks(MpiEnvironment& mpi, const std::filesystem::path& folder);
}  // namespace trireme
