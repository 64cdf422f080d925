#include "bench/cases.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>
#include <vector>

#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>

#include "bench/raw_mpi.h"
#include "bench/workload.h"
#include "core/error.h"
#include "core/philox.h"
#include "data/dataset.h"
#include "dist/local_communicator.h"
#include "trainer/optim/tensor_norm.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme::bench {
namespace {
using Clock = std::chrono::steady_clock;
constexpr int kStepsAtOnce = 3;
constexpr int64_t kLoads = 2000;
constexpr int64_t kNormals = int64_t{1} << 22;

// Seconds of one of `repetitions` calls.
template <typename Work>
double time_of(int64_t repetitions, const Work& work) {
  const auto begin = Clock::now();
  for (int64_t i = 0; i < repetitions; ++i) work();
  return std::chrono::duration<double>(Clock::now() - begin).count() /
         static_cast<double>(repetitions);
}

int64_t repetitions_for(int64_t bytes) {
  return std::clamp<int64_t>((int64_t{64} << 20) / std::max<int64_t>(bytes, 1), 2, 2000);
}

std::function<double()> all_reduce_case(MpiEnvironment& mpi, int64_t bytes) {
  auto comm = std::shared_ptr<Communicator>(make_communicator(mpi, {}));
  auto buffer = std::shared_ptr<CommBuffer>(
      comm->allocate(bytes / static_cast<int64_t>(sizeof(float)), ScalarType::kFloat32));
  return [comm, buffer, bytes] {
    mpi_barrier();
    return time_of(repetitions_for(bytes),
                   [&] { comm->all_reduce(buffer->view(), ReduceOp::kSum)->wait(); });
  };
}

std::function<double()> mpi_all_reduce_case(int64_t bytes) {
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(bytes) / sizeof(float));
  return [values, bytes] {
    mpi_barrier();
    return time_of(repetitions_for(bytes), [&] { mpi_all_reduce(*values); });
  };
}

// 700 tensors of sizes as a UNet has them: many small, some large. 14.6 M elements in all.
std::vector<int64_t> tensor_sizes() {
  std::vector<int64_t> sizes;
  for (int i = 0; i < 700; ++i) {
    sizes.push_back(i % 7 == 0 ? 128 * 128 * 9 - 2048 : (i % 2 == 0 ? 128 : 192));
  }
  return sizes;
}

int64_t total_elements() {
  int64_t total = 0;
  for (const int64_t size : tensor_sizes()) total += size;
  return total;
}

struct FlatProblem {
  std::unique_ptr<Communicator> comm = make_local_communicator();
  NamedParameters parameters;
  std::unique_ptr<GradientBuckets> buckets;
  std::unique_ptr<Optimizer> optimizer;
  int64_t step = 0;

  FlatProblem() {
    std::vector<size_t> order;
    const auto sizes = tensor_sizes();
    for (const int64_t size : sizes) {
      order.push_back(order.size());
      parameters.emplace_back(std::to_string(order.size()), torch::randn({size}));
    }
    buckets = std::make_unique<GradientBuckets>(*comm, parameters, plan_buckets(order, sizes, {}));
    for (auto& bucket : buckets->flat()) bucket.grads.fill_(1e-3);
    optimizer = make_optimizer(OptimOptions{}, buckets->flat());
  }
  void update() {
    const torch::NoGradGuard no_grad;
    const at::Tensor norm = sum_of_squares(buckets->flat()).sqrt();
    optimizer->step(++step, 1e-4, (1.0 / (norm + 1e-6)).clamp_max(1.0).to(torch::kFloat));
  }
};

std::function<double()> piece_norms_case() {
  auto problem = std::make_shared<FlatProblem>();
  return [problem] {
    at::Tensor total = torch::zeros({}, torch::kDouble);
    double seconds = 0.0;
    for (auto& bucket : problem->buckets->flat()) {
      for (const auto& segment : bucket.segments) {
        bucket.grads.narrow(0, segment.offset, segment.num_elements).fill_(1e-3);
        const FlatRange range{segment.offset, segment.offset + segment.num_elements};
        seconds += time_of(1, [&] { internal::add_sum_of_squares(bucket.grads, range, total); });
      }
    }
    return seconds;
  };
}

std::function<double()> torch_optimizer_case(std::vector<int64_t> sizes) {
  std::vector<at::Tensor> parameters;
  for (const int64_t size : sizes) {
    parameters.push_back(torch::randn({size}).requires_grad_(true));
    parameters.back().mutable_grad() = torch::full({size}, 1e-3);
  }
  auto optimizer = std::make_shared<torch::optim::AdamW>(
      parameters, torch::optim::AdamWOptions(1e-4).weight_decay(0.01));
  return [parameters, optimizer] {
    return time_of(3, [&] {
      torch::nn::utils::clip_grad_norm_(parameters, 1.0);
      optimizer->step();
    });
  };
}

std::function<double()> loader_case(const std::filesystem::path& file) {
  std::shared_ptr<LatentDataset> dataset = LatentDataset::open({file});
  const auto elements = static_cast<size_t>(dataset->classes().front().shape.num_elements());
  auto latent = std::make_shared<std::vector<float>>(elements);
  auto next = std::make_shared<uint64_t>(1);
  return [dataset, latent, next] {
    return time_of(kLoads, [&] {
      *next = *next * 6364136223846793005ULL + 1442695040888963407ULL;
      const auto sample =
          static_cast<int64_t>((*next >> 33) % static_cast<uint64_t>(dataset->num_samples()));
      dataset->read_latent(sample, {}, *latent);
    });
  };
}
}  // namespace

Cases::Cases(MpiEnvironment& mpi, std::filesystem::path folder)
    : mpi_(mpi), folder_(std::move(folder)) {}

Cases::~Cases() = default;

double Cases::measure(const std::string& name) {
  auto found = ready_.find(name);
  if (found == ready_.end()) found = ready_.emplace(name, make(name)).first;
  return found->second();
}

Cases::Measurement Cases::make(const std::string& name) {
  const size_t colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  const int64_t bytes = colon == std::string::npos ? 0 : std::stoll(name.substr(colon + 1));
  if (kind == "all_reduce") return all_reduce_case(mpi_, bytes);
  if (kind == "mpi_all_reduce") return mpi_all_reduce_case(bytes);
  if (kind == "optimizer") {
    auto problem = std::make_shared<FlatProblem>();
    return [problem] { return time_of(5, [&] { problem->update(); }); };
  }
  if (kind == "piece_norms") return piece_norms_case();
  if (kind == "optimizer_torch") return torch_optimizer_case(tensor_sizes());
  if (kind == "optimizer_torch_flat") return torch_optimizer_case({total_elements()});
  if (kind == "loader") return loader_case(folder_ / "loader.h5");
  if (kind == "noise") {
    auto normals = std::make_shared<std::vector<float>>(static_cast<size_t>(kNormals));
    return [normals] {
      const double seconds =
          time_of(1, [&] { PositionRandom(1, Stream::kNoise, 0, 0).normals(*normals); });
      return seconds / static_cast<double>(kNormals);
    };
  }
  return make_step(kind);
}

Cases::Measurement Cases::make_step(const std::string& name) {
  const bool is_large = name.starts_with("large_");
  const bool is_alone = name.ends_with("_alone");
  const bool is_checkpoint = name == "checkpoint";
  const bool has_shards = name == "step_shards";
  if (!is_checkpoint && !has_shards &&
      name != std::string(is_large ? "large_step" : "step") + (is_alone ? "_alone" : "")) {
    throw UsageError("bench cannot measure '" + name + "'.");
  }
  Config config =
      training_config(folder_, is_large ? Model::kLarge : Model::kUNet, mpi_.world_size());
  if (has_shards) config.parallel.shards = mpi_.world_size();
  Trainer::Options options;
  if (is_checkpoint) {
    options.run_dir = folder_ / "run";
    std::filesystem::create_directories(options.run_dir);
  }
  if (is_alone) options.make_communicator = [] { return make_local_communicator(); };
  auto trainer = std::make_shared<Trainer>(mpi_, open_session(config, choose_device(mpi_)),
                                           std::move(options));
  (void)trainer->run_step();  // The first one allocates.
  if (is_checkpoint) {
    return [trainer] {
      (void)trainer->run_step();
      mpi_barrier();
      return time_of(1, [&] { trainer->save_checkpoint(); });
    };
  }
  return [trainer] {
    mpi_barrier();
    return time_of(kStepsAtOnce, [&] { (void)trainer->run_step(); });
  };
}
}  // namespace trireme::bench
