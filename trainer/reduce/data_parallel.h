#pragma once
#include <functional>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "dist/mpi_environment.h"
#include "trainer/reduce/gradient_buckets.h"
#include "trainer/reduce/gradient_reducer.h"

namespace trireme {

// Data-parallel training of any LibTorch model: what DistributedDataParallel is to PyTorch's Python
// front end, and its C++ front end lacks. Each rank holds the model and a share of the batch;
// backward() leaves in every parameter's grad() the mean over ranks, reduced while backward goes
// on. Parameters and gradients become views of flat buffers: let an optimizer's zero_grad() alone
// (backward() zeroes), and make no parameter anew. examples/data_parallel has a whole program.
//
// Collective in all methods; use from one thread.
class DataParallel {
 public:
  struct Options {
    Backend backend = Backend::kAuto;
    int device = -1;                             // CUDA device of the parameters; -1: CPU.
    std::function<void*()> compute_stream = {};  // As in CommunicatorOptions.
    double timeout_seconds = 600.0;
  };
  // All ranks give the same float32 parameters under the same names; rank 0's values become
  // everybody's. `loss` is called once, to learn in which order gradients come; those are
  // discarded. UsageError where a parameter gets no gradient. `mpi` outlives this object.
  DataParallel(MpiEnvironment& mpi, const NamedParameters& parameters,
               const std::function<at::Tensor()>& loss, const Options& options);
  DataParallel(MpiEnvironment& mpi, const NamedParameters& parameters,
               const std::function<at::Tensor()>& loss)
      : DataParallel(mpi, parameters, loss, Options{}) {}

  // Runs the backward pass of this rank's mean loss. With equal shares the gradients are then those
  // of the mean over the whole batch.
  void backward(const at::Tensor& loss);
  // The mean of `value` over ranks, for display.
  [[nodiscard]] double mean(double value);

  [[nodiscard]] Communicator& communicator() noexcept { return *comm_; }

 private:
  MpiEnvironment& mpi_;
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<GradientBuckets> buckets_;
  std::unique_ptr<GradientReducer> reducer_;
};
}  // namespace trireme
