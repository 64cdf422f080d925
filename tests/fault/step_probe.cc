// What Python tests ask of a training step that `trireme train` does not show:
//   step_probe flip CONFIG RANK STEP WHAT OWNER
//       trains as `trireme train` does and flips one bit of rank RANK's copy of the summed gradient
//       or the parameters (WHAT: grads, params) at one step (0: at none), in the slice that rank
//       OWNER stands for
//   step_probe spoil CONFIG STEP
//       likewise, and makes a gradient NaN on one rank at that step
//   step_probe syncs CONFIG
//       operators that would make the host wait for a device, of steps 2 to 4
//   step_probe memory CONFIG
//       bytes of memory (PSS) that training takes beside the model, per parameter, as a mean over
//       ranks
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include <malloc.h>

#include "core/files.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/command_line.h"
#include "launcher/config_file.h"
#include "trainer/host_sync_counter.h"
#include "trainer/run_directory.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
void flip_bit(const at::Tensor& values, int owner, int world_size) {
  auto* words = reinterpret_cast<uint32_t*>(values.data_ptr<float>());
  words[values.numel() / world_size * owner + 11] ^= 1U << 3;
}

// Trains as `trireme train` does, with `damage` done to one step's summed gradients on one rank.
int train_with_damage(MpiEnvironment& mpi, const Config& config, int rank, int64_t step,
                      const std::function<void(std::vector<FlatBucket>&)>& damage) {
  std::unique_ptr<RunDirectory> run;
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    run = std::make_unique<RunDirectory>(config.run.dir, RunDirectory::Start::kFresh);
    write_text_file_atomically(run->config_file(), write_config(config));
  });
  Trainer::Options options;
  options.run_dir = config.run.dir;
  options.config_toml = write_config(config);
  options.on_summed_gradients = [&](int64_t now, std::vector<FlatBucket>& buckets) {
    if (now == step && mpi.rank() == rank) damage(buckets);
  };
  Trainer trainer(mpi, open_session(config, "cpu"), std::move(options));
  return static_cast<int>(trainer.run());
}

int syncs(MpiEnvironment& mpi, const Config& config) {
  Trainer trainer(mpi, open_session(config, "cpu"), {});
  (void)trainer.run_step();
  HostSyncCounter counter;
  for (int i = 0; i < 3; ++i) (void)trainer.run_step();
  for (const auto& name : counter.names()) std::cerr << name << '\n';
  std::cout << counter.count() << std::endl;
  return 0;
}

// The process's proportional share of memory, in bytes: shared pages count once over all who map
// them.
double memory_bytes() {
  malloc_trim(0);
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string word; file >> word;) {
    if (word != "Pss:") continue;
    double kilobytes = 0;
    file >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

int memory(MpiEnvironment& mpi, const Config& config) {
  Session session = open_session(config, "cpu");
  int64_t parameters = 0;
  for (const auto& [name, tensor] : session.model->named_parameters()) {
    parameters += tensor.numel();
  }
  // Before and after mean all ranks: pages move from one rank's share to another's.
  const auto mean = [&] {
    mpi.barrier();
    std::vector<double> sum = {memory_bytes()};
    mpi.all_reduce_sum(sum);
    return sum[0] / mpi.world_size();
  };
  const double model = 4.0 * static_cast<double>(parameters);
  const double before = mean() - model;
  Trainer trainer(mpi, std::move(session), {});
  for (int i = 0; i < 2; ++i) (void)trainer.run_step();
  const double after = mean();
  if (mpi.rank() == 0) {
    std::cout << (after - before) / static_cast<double>(parameters) << std::endl;
  }
  return 0;
}

int run(MpiEnvironment& mpi, int argc, char** argv) {
  log::configure(mpi.rank(), mpi.world_size());
  torch::set_num_threads(1);
  const std::string what = argc > 2 ? argv[1] : "";
  if (what == "syncs") return syncs(mpi, load_config(argv[2]).config);
  if (what == "memory") return memory(mpi, load_config(argv[2]).config);
  if (what == "flip" && argc == 7) {
    const bool in_params = std::string(argv[5]) == "params";
    const auto flip = [&](const auto& buckets) {
      const FlatBucket& last = buckets.back();
      flip_bit(in_params ? last.params : last.grads, std::atoi(argv[6]), mpi.world_size());
    };
    return train_with_damage(mpi, load_config(argv[2]).config, std::atoi(argv[3]),
                             std::atoll(argv[4]), flip);
  }
  if (what == "spoil" && argc == 4) {
    const auto spoil = [](auto& buckets) {
      buckets.front().grads.slice(0, 0, 1).fill_(std::numeric_limits<float>::quiet_NaN());
    };
    return train_with_damage(mpi, load_config(argv[2]).config, 0, std::atoll(argv[3]), spoil);
  }
  return static_cast<int>(ExitCode::kUsage);
}
}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  return trireme::run_reporting_errors([&] {
    return trireme::run_as_rank(
        [&](trireme::MpiEnvironment& mpi) { return trireme::run(mpi, argc, argv); });
  });
}
