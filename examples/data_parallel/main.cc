// Trains a LibTorch model of your own on several ranks with Trireme's data-parallel engine:
//   mpirun -np 2 ./data_parallel
#include <cstdio>

#include <torch/torch.h>

#include "core/error.h"
#include "trainer/reduce/data_parallel.h"

namespace {
constexpr int64_t kBatch = 64;  // Over all ranks.

struct Net : torch::nn::Module {
  Net()
      : hidden(register_module("hidden", torch::nn::Linear(8, 32))),
        output(register_module("output", torch::nn::Linear(32, 1))) {}
  torch::Tensor forward(const torch::Tensor& x) { return output(torch::tanh(hidden(x))); }
  torch::nn::Linear hidden;
  torch::nn::Linear output;
};

int train(trireme::MpiEnvironment& mpi) {
  torch::manual_seed(0);
  Net net;  // Rank 0's weights become everybody's.
  trireme::NamedParameters parameters;
  for (const auto& item : net.named_parameters()) parameters.emplace_back(item.key(), item.value());

  // This rank's share of the batch; the batch itself does not depend on the number of ranks.
  const int64_t share = kBatch / mpi.world_size();
  int64_t step = 0;
  const auto loss = [&] {
    torch::manual_seed(static_cast<uint64_t>(step));
    const auto x = torch::randn({kBatch, 8});                        // (B, 8)
    const auto y = torch::sin(3 * x.mean(1, true));                  // (B, 1)
    const auto mine = x.narrow(0, mpi.rank() * share, share);        // (B / ranks, 8)
    return torch::mse_loss(net.forward(mine), y.narrow(0, mpi.rank() * share, share));
  };

  trireme::DataParallel parallel(mpi, parameters, loss);
  torch::optim::Adam optimizer(net.parameters(), 1e-2);
  for (step = 1; step <= 200; ++step) {
    const auto value = loss();
    parallel.backward(value);  // Each grad() is now the mean over ranks.
    optimizer.step();
    const double mean = parallel.mean(value.item<double>());
    if (step % 50 == 0 && mpi.rank() == 0)
      std::printf("step %3ld  loss %.6f\n", static_cast<long>(step), mean);
  }
  return 0;
}
}  // namespace

int main() { return trireme::run_as_rank(train); }
