#include <array>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "dist/local_communicator.h"
#include "dist/mpi_communicator.h"
#include "dist/mpi_environment.h"
#include "dist/mpi_environment_impl.h"
#include "dist/nccl_communicator.h"
#include "dist/shm_communicator.h"

namespace trireme {
namespace {
#ifdef TRIREME_WITH_CUDA
constexpr bool kHasNccl = true;
std::unique_ptr<Communicator> make_nccl(MpiEnvironment& mpi, const CommunicatorOptions& options) {
  return make_nccl_communicator(mpi, options);
}
#else
constexpr bool kHasNccl = false;
std::unique_ptr<Communicator> make_nccl(MpiEnvironment&, const CommunicatorOptions&) {
  throw InternalError("there is no NCCL in this build");
}
#endif

// The same on all ranks.
struct Situation {
  bool some_have_devices = false;
  bool all_have_devices = false;
  bool one_node = false;
};

Situation look_around(MpiEnvironment& mpi, const CommunicatorOptions& options) {
  std::array<int64_t, 2> values{options.device >= 0 ? 1 : 0, options.device >= 0 ? 0 : 1};
  mpi.all_reduce_max(values);
  return {.some_have_devices = values[0] == 1,
          .all_have_devices = values[1] == 0,
          .one_node = mpi.num_nodes() == 1};
}

void check_possible(const Situation& now, Backend backend) {
  if (now.some_have_devices && !now.all_have_devices) {
    throw UsageError(
        "Some ranks have a GPU and others have none. Start at most as many ranks on each host as "
        "it has "
        "GPUs (`trireme launch` does), or hide them all with CUDA_VISIBLE_DEVICES=.");
  }
  if (backend == Backend::kNccl && !kHasNccl) {
    throw UsageError(
        "parallel.backend = \"nccl\" needs a build with CUDA; this one is for CPUs. Use \"auto\", "
        "or build "
        "with the cuda preset.");
  }
  if (backend == Backend::kNccl && !now.all_have_devices) {
    throw UsageError(
        "parallel.backend = \"nccl\" needs a GPU for each rank, and none is visible here. Use "
        "\"auto\", "
        "or check nvidia-smi and CUDA_VISIBLE_DEVICES.");
  }
  if ((backend == Backend::kShm || backend == Backend::kMpi) && now.some_have_devices) {
    throw UsageError(
        "parallel.backend = \"shm\" and \"mpi\" move host memory, but this run is on GPUs. Use "
        "\"nccl\" or "
        "\"auto\", or hide the GPUs with CUDA_VISIBLE_DEVICES=.");
  }
  if (backend == Backend::kShm && !now.one_node) {
    throw UsageError(
        "parallel.backend = \"shm\" connects ranks of one host only, and these are on several. Use "
        "\"mpi\" or "
        "\"auto\".");
  }
}

std::unique_ptr<Communicator> make_shm_or_mpi(MpiEnvironment& mpi,
                                              const CommunicatorOptions& options) {
  auto created = make_shm_communicator(
      mpi, {.timeout_seconds = options.timeout_seconds, .trace = options.trace});
  if (created.communicator != nullptr) return std::move(created.communicator);
  if (mpi.rank() == 0) {
    log::info("Ranks cannot share memory here (" + created.reason +
              "): they communicate by MPI instead.");
  }
  return make_mpi_communicator(
      mpi, {.timeout_seconds = options.timeout_seconds, .trace = options.trace});
}
}  // namespace

std::unique_ptr<Communicator> make_communicator(MpiEnvironment& mpi,
                                                const CommunicatorOptions& asked) {
  CommunicatorOptions options = asked;
  options.timeout_seconds = mpi.impl().forced_timeout_seconds.value_or(asked.timeout_seconds);
  const Situation now = look_around(mpi, options);
  mpi.run_on_all_ranks([&] { check_possible(now, options.backend); });
  switch (options.backend) {
    case Backend::kNccl:
      return make_nccl(mpi, options);
    case Backend::kShm:
      return make_shm_or_mpi(mpi, options);
    case Backend::kMpi:
      return make_mpi_communicator(
          mpi, {.timeout_seconds = options.timeout_seconds, .trace = options.trace});
    case Backend::kAuto:
      break;
  }
  if (kHasNccl && now.all_have_devices) return make_nccl(mpi, options);
  if (mpi.world_size() == 1) return make_local_communicator();
  if (now.one_node) return make_shm_or_mpi(mpi, options);
  return make_mpi_communicator(
      mpi, {.timeout_seconds = options.timeout_seconds, .trace = options.trace});
}
}  // namespace trireme
