#include "dist/announced.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "dist/mpi_environment.h"

namespace trireme {
namespace {
int number_in(const char* variable) {
  const char* text = std::getenv(variable);
  int value = 0;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), value);
  return value;
}
}  // namespace

Announced announced_processes() {
  struct Source {
    const char* size;
    const char* rank;
  };
  constexpr Source kSources[] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                 {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
                                 {"PMI_SIZE", "PMI_RANK"}};
  for (const auto& source : kSources) {
    const int size = number_in(source.size);
    if (size > 0)
      return {.num_processes = size, .rank = number_in(source.rank), .variable = source.size};
  }
  return {};
}

void check_announced(const Announced& announced, int world_size) {
  if (announced.num_processes <= world_size) return;
  if (announced.rank != 0) throw PeerFailedError(ExitCode::kUsage);
  throw UsageError(
      announced.variable + " announces " + std::to_string(announced.num_processes) +
      " processes, but MPI connected only " + std::to_string(world_size) +
      ": each would train alone in the same run directory. Under Slurm start them with "
      "`srun --mpi=pmix`; otherwise with the mpirun that belongs to the MPI that trireme was built "
      "with (Open MPI), or with `trireme launch`. To run one process alone, unset " +
      announced.variable + ".");
}

void check_direct_launch(const Announced& announced) {
  if (announced.variable != "SLURM_STEP_NUM_TASKS" || std::getenv("PMIX_RANK") != nullptr) return;
  // A single process of a step is Open MPI's concern too; one that is told so by hand is not.
  if (announced.num_processes == 1 && std::getenv("SLURM_STEP_ID") == nullptr) return;
  if (announced.rank != 0) throw PeerFailedError(ExitCode::kUsage);
  throw UsageError("srun started " + std::to_string(announced.num_processes) +
                   " process(es) without PMIx, which MPI needs to connect them: MPI_Init would "
                   "abort. Start them "
                   "with `srun --mpi=pmix` (`srun --mpi=list` shows whether Slurm has it), or with "
                   "`trireme launch` or mpirun within the allocation.");
}
}  // namespace trireme
