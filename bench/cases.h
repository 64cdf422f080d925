#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "dist/mpi_environment.h"

namespace trireme::bench {

// What a worker rank can measure, by name; a name's argument follows a colon:
//   all_reduce:BYTES        the communicator's, on gradients resident in its memory
//   mpi_all_reduce:BYTES    MPI_Allreduce
//   optimizer               norm, clip and AdamW over flat buckets of 700 tensors
//   optimizer_torch         clip_grad_norm_ and torch::optim::AdamW on those 700 tensors
//   optimizer_torch_flat    the same on one tensor of as many elements
//   piece_norms             what the gradient-noise scale adds to a step: the squared norms of those
//                           700 gradients, each as it has just been written
//   loader, noise           one random latent read; one standard normal made
//   step, large_step        a training step of the workload's two models
//   step_alone, large_step_alone   the same ranks' step with the reduction left out
//   step_shards             the first model's step with parallel.shards = ranks
//   checkpoint              how long a checkpoint holds training up
// Values are seconds per operation. What a case needs is set up at its first use, outside of its
// time.
class Cases {
 public:
  // `mpi` outlives it; `folder` holds the workload.
  Cases(MpiEnvironment& mpi, std::filesystem::path folder);
  ~Cases();
  // Collective. Throws UsageError for an unknown name.
  [[nodiscard]] double measure(const std::string& name);

 private:
  using Measurement = std::function<double()>;
  [[nodiscard]] Measurement make(const std::string& name);
  [[nodiscard]] Measurement make_step(const std::string& name);

  MpiEnvironment& mpi_;
  std::filesystem::path folder_;
  std::map<std::string, Measurement> ready_;
};
}  // namespace trireme::bench
