#include "trainer/reduce/data_parallel.h"

#include <array>
#include <span>
#include <vector>

#include "trainer/torch_api.h"

namespace trireme {
DataParallel::DataParallel(MpiEnvironment& mpi, const NamedParameters& parameters,
                           const std::function<at::Tensor()>& loss, const Options& options)
    : mpi_(mpi),
      comm_(make_communicator(mpi, {.backend = options.backend,
                                    .timeout_seconds = options.timeout_seconds,
                                    .device = options.device,
                                    .compute_stream = options.compute_stream})) {
  std::vector<size_t> order;
  std::vector<int64_t> sizes;
  mpi_.run_on_all_ranks([&] {
    order = measure_gradient_order(parameters, [&] { loss().backward(); });
    for (const auto& [name, tensor] : parameters) sizes.push_back(tensor.numel());
  });
  mpi_.broadcast_bytes(std::as_writable_bytes(std::span(order)));
  buckets_ = std::make_unique<GradientBuckets>(*comm_, parameters, plan_buckets(order, sizes, {}));
  reducer_ = std::make_unique<GradientReducer>(*comm_, *buckets_, GradientReducer::Options{});
  for (const auto& bucket : buckets_->flat()) comm_->broadcast(view_of(bucket.params), 0)->wait();
}

void DataParallel::backward(const at::Tensor& loss) {
  reducer_->begin_step();
  reducer_->begin_piece();
  reducer_->arm();
  (loss / comm_->world_size()).backward();
  reducer_->wait();
}

double DataParallel::mean(double value) {
  std::array<double, 1> sum{value};
  mpi_.all_reduce_sum(sum);
  return sum[0] / comm_->world_size();
}
}  // namespace trireme
