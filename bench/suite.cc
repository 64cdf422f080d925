#include "bench/suite.h"

#include <array>
#include <bit>
#include <chrono>
#include <map>

#include "bench/coprocess.h"
#include "core/error.h"

namespace trireme::bench {
namespace {
using Where = Peer::Where;
constexpr const char* kStart = "start";  // Not a case: a process from its start.

Comparison all_reduce(const std::string& size, int64_t bytes, double gloo_target, double mpi_target,
                      double target_seconds) {
  const std::string number = std::to_string(bytes);
  return {.group = "all_reduce",
          .title = "all-reduce, " + size,
          .name = "all_reduce:" + number,
          .peers = {{"PyTorch, Gloo", Where::kPython, "all_reduce:" + number, gloo_target},
                    {"MPI_Allreduce", Where::kWorker, "mpi_all_reduce:" + number, mpi_target}},
          .unit = Unit::kSeconds,
          .target_seconds = target_seconds};
}

Comparison compare(std::string group, std::string title, std::string name, std::vector<Peer> peers,
                   Unit unit = Unit::kSeconds, double target_seconds = 0.0) {
  return {.group = std::move(group),
          .title = std::move(title),
          .name = std::move(name),
          .peers = std::move(peers),
          .unit = unit,
          .target_seconds = target_seconds};
}
// Nothing is communicated, so the targets are those of one process; all at once share the memory's
// bandwidth.
Comparison adamw(const std::string& who, const std::string& prefix,
                 const std::array<double, 3>& targets) {
  return compare(
      "optimizer", "AdamW with clipping, 700 tensors" + who, prefix + "optimizer",
      {{"torch::optim::AdamW", Where::kPlainWorker, prefix + "optimizer_torch", targets[0]},
       {"torch::optim::AdamW, one tensor", Where::kPlainWorker, prefix + "optimizer_torch_flat",
        targets[1]},
       {"PyTorch, fused AdamW", Where::kPython, prefix + "optimizer", targets[2]}});
}
}  // namespace

std::vector<Comparison> all_comparisons(int num_ranks) {
  std::vector<Comparison> all = {
      compare("step", "step, UNet of 14.6 M", "step",
              {{"PyTorch, DDP over Gloo", Where::kPython, "step", 0.93},
               {"without the reduction", Where::kWorker, "step_alone", 1.03}}),
      compare("step", "step with parallel.shards", "step_shards",
              {{"without", Where::kWorker, "step", 0.0}}),
      compare("step", "norms for the noise scale", "piece_norms",
              {{"the whole step", Where::kWorker, "step", 0.005}}),
      compare("step", "step, 100 MB of gradients", "large_step",
              {{"PyTorch, DDP over Gloo", Where::kPython, "large_step", 0.7},
               {"without the reduction", Where::kWorker, "large_step_alone", 0.0}}),
      all_reduce("4 KiB", int64_t{4} << 10, 0.0, 0.0, 20e-6),
      all_reduce("64 KiB", int64_t{64} << 10, 0.0, 0.0, 0.0),
      all_reduce("1 MiB", int64_t{1} << 20, 0.0, 0.0, 0.0),
      all_reduce("25 MiB", int64_t{25} << 20, 1.0 / 8, 1.0 / 3, 0.0),
      all_reduce("256 MiB", int64_t{256} << 20, 0.0, 0.0, 0.0),
      adamw(", one process", "alone/", {1.0 / 3, 1.0 / 8, 1.0 / 1.3}),
      adamw(", all at once", "", {0.0, 0.0, 0.0}),
      compare("loader", "one random latent read", "loader",
              {{"h5py", Where::kPython, "loader", 1.0 / 5}}, Unit::kPerSecond),
      compare("loader", "one standard normal made", "noise",
              {{"torch.randn", Where::kPython, "noise", 0.0}}, Unit::kPerSecond, 1.0 / 50e6),
      compare("start", "start to the end of the first step", kStart,
              {{"PyTorch, DDP over Gloo", Where::kPython, kStart, 0.3}}),
      compare("checkpoint", "checkpoint: training held up", "checkpoint",
              {{"torch.save and fsync", Where::kPython, "checkpoint", 0.0}}),
  };
  if (!std::has_single_bit(static_cast<unsigned>(num_ranks))) {
    std::erase_if(all, [](const Comparison& each) { return each.name == "step_shards"; });
  }
  if (num_ranks == 1) {
    std::erase_if(all, [](const Comparison& each) { return each.name == "optimizer"; });
  }
  return all;
}

struct Suite::Processes {
  std::map<Where, std::unique_ptr<Coprocess>> waiting;
};

Suite::Suite(SuiteOptions options)
    : options_(std::move(options)), processes_(std::make_unique<Processes>()) {}

Suite::~Suite() = default;

const std::vector<std::string>& Suite::command_of(Where where) const {
  return where == Where::kPython ? options_.python : options_.worker;
}

Environment Suite::environment_of(Where where) const {
  Environment environment = options_.environment;
  environment.emplace_back("THP_MEM_ALLOC_ENABLE", where == Where::kWorker ? "1" : "0");
  return environment;
}

double Suite::sample(Where where, const std::string& name) {
  if (name == kStart) return start_and_step(where);
  auto& process = processes_->waiting[where];
  if (!process) process = std::make_unique<Coprocess>(command_of(where), environment_of(where));
  process->tell(name);
  return std::stod(process->hear());
}

double Suite::start_and_step(Where where) {
  auto command = command_of(where);
  command.emplace_back("--first-step");
  const auto begin = std::chrono::steady_clock::now();
  Coprocess process(command, environment_of(where));
  (void)process.hear();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Result Suite::measure(const Comparison& comparison) {
  struct Contender {
    Where where;
    std::string name;
    std::vector<double> samples;
  };
  std::vector<Contender> contenders = {{Where::kWorker, comparison.name, {}}};
  Result result{.comparison = comparison, .ours = {}, .peers = {}};
  for (const auto& peer : comparison.peers) {
    if (peer.where == Where::kPython && options_.python.empty()) continue;
    contenders.push_back({peer.where, peer.name, {}});
    result.peers.push_back({.peer = peer, .seconds = {}, .ratio = {}});
  }
  for (auto& contender : contenders) (void)sample(contender.where, contender.name);
  for (int round = 0; round < options_.rounds; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      auto& contender = contenders[(i + static_cast<size_t>(round)) % contenders.size()];
      contender.samples.push_back(sample(contender.where, contender.name));
    }
  }
  result.ours = median_interval(contenders.front().samples);
  for (size_t i = 0; i < result.peers.size(); ++i) {
    result.peers[i].seconds = median_interval(contenders[i + 1].samples);
    result.peers[i].ratio =
        median_interval(ratios(contenders.front().samples, contenders[i + 1].samples));
  }
  return result;
}
}  // namespace trireme::bench
