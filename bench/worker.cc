#include "bench/worker.h"

#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>

#include "bench/cases.h"
#include "bench/workload.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme::bench {
namespace {
constexpr std::string_view kAlone = "alone/";  // Before a case that rank 0 measures by itself.

void answer(double value) {
  std::printf("BENCH %.9g\n", value);
  std::fflush(stdout);
}
}  // namespace

void serve(MpiEnvironment& mpi, const std::filesystem::path& folder) {
  Cases cases(mpi, folder);
  for (;;) {
    std::string name;
    if (mpi.rank() == 0) std::getline(std::cin, name);
    mpi.broadcast_string(name);
    if (name.empty()) return;
    const bool is_alone = name.starts_with(kAlone);
    if (is_alone) name.erase(0, kAlone.size());
    if (is_alone && mpi.rank() != 0) continue;
    const double seconds = cases.measure(name);
    if (mpi.rank() == 0) answer(seconds);
  }
}

void make_first_step(MpiEnvironment& mpi, const std::filesystem::path& folder) {
  const Config config = training_config(folder, Model::kUNet, mpi.world_size());
  Trainer trainer(mpi, open_session(config, choose_device(mpi)), {});
  const StepResult result = trainer.run_step();
  if (mpi.rank() == 0) answer(result.loss);
}
}  // namespace trireme::bench
