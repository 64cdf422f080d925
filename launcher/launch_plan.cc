#include "launcher/launch_plan.h"

#include <algorithm>
#include <string_view>

#include "core/error.h"

namespace trireme {
namespace {
constexpr int kCoresPerRankByDefault = 2;
constexpr int kMostRanksByDefault = 8;

std::string plural(int count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

bool is_mig(const Machine& machine) {
  return !machine.gpus.empty() && machine.gpus.front().num_mig_instances > 0;
}

// Ranks that will share this host (or each host of an allocation).
struct Choice {
  int num_ranks = 0;
  int per_host = 0;
  std::string why;
};

int gpus_of(const Machine& machine, const LaunchRequest& request) {
  return request.build == Build::kCuda ? static_cast<int>(machine.gpus.size()) : 0;
}

Choice choose_on_hosts(const Machine& machine, const LaunchRequest& request) {
  const int gpus = gpus_of(machine, request);
  Choice choice;
  for (const auto& [host, slots] : request.hosts) {
    const int here = slots > 0 ? slots : gpus;
    if (here == 0) {
      throw UsageError("--hosts gives no number of ranks for " + host +
                       ", and without GPUs here there is none to assume. Write " + host + ":N.");
    }
    choice.num_ranks += here;
    choice.per_host = std::max(choice.per_host, here);
  }
  choice.why = plural(choice.num_ranks, "rank") + " on " +
               plural(static_cast<int>(request.hosts.size()), "host");
  if (request.num_ranks > 0 && request.num_ranks != choice.num_ranks) {
    throw UsageError("-n " + std::to_string(request.num_ranks) +
                     " contradicts --hosts, which adds up to " + std::to_string(choice.num_ranks) +
                     ". Give one of them.");
  }
  return choice;
}

Choice choose(const Machine& machine, const LaunchRequest& request) {
  if (!request.hosts.empty()) return choose_on_hosts(machine, request);
  const int gpus = gpus_of(machine, request);
  const int nodes = std::max(1, request.num_nodes);
  Choice choice;
  if (request.num_ranks > 0) {
    if (gpus > 0 && request.num_ranks > gpus * nodes) {
      if (is_mig(machine)) {
        throw UsageError(
            "-n " + std::to_string(request.num_ranks) +
            ": this GPU is divided by MIG, and CUDA shows a process one instance of it, which no "
            "other rank can reach. Use -n 1, turn MIG off (nvidia-smi -mig 0, by root), or name "
            "whole GPUs in CUDA_VISIBLE_DEVICES.");
      }
      throw UsageError("-n " + std::to_string(request.num_ranks) +
                       " asks for more ranks than the " + plural(gpus * nodes, "GPU") +
                       " visible here, and a GPU takes one rank. Use fewer, or hide the GPUs with "
                       "CUDA_VISIBLE_DEVICES= to train on CPUs.");
    }
    choice.num_ranks = request.num_ranks;
    choice.why = plural(request.num_ranks, "rank") + " as asked";
  } else if (gpus > 0) {
    choice.num_ranks = gpus * nodes;
    choice.why = plural(choice.num_ranks, "rank") + ", one per GPU";
    if (is_mig(machine)) choice.why += " (an instance of it, by MIG)";
  } else {
    const int here = std::clamp(machine.num_cores / kCoresPerRankByDefault, 1, kMostRanksByDefault);
    choice.num_ranks = here * nodes;
    choice.why = plural(choice.num_ranks, "rank") + " for " + plural(machine.num_cores, "core") +
                 (nodes > 1 ? " on each of " + plural(nodes, "node") : "") +
                 " without GPU (choose with -n)";
  }
  choice.per_host = (choice.num_ranks + nodes - 1) / nodes;
  return choice;
}

std::string host_list(const LaunchRequest& request, int gpus) {
  std::string list;
  for (const auto& [host, slots] : request.hosts) {
    list += (list.empty() ? "" : ",") + host + ":" + std::to_string(slots > 0 ? slots : gpus);
  }
  return list;
}

std::vector<std::string> mpirun_command(const Machine& machine, const LaunchRequest& request,
                                        const Choice& choice, int threads) {
  std::vector<std::string> command{"mpirun"};
  const auto add = [&command](const std::vector<std::string>& words) {
    command.insert(command.end(), words.begin(), words.end());
  };
  if (request.user == User::kRoot) add({"--allow-run-as-root"});
  // Its reports on ranks that end with a code hide the one paragraph that matters.
  if (request.hosts.empty()) add({"--quiet"});
  // mpirun would bind each rank to one core; ranks choose their cores themselves (place_ranks()).
  add({"--bind-to", "none"});
  if (choice.per_host > machine.num_cores)
    add({"--oversubscribe", "--mca", "mpi_yield_when_idle", "1"});
  if (request.labels == LineLabels::kRank) add({"--tag-output"});
  if (!request.hosts.empty()) add({"--host", host_list(request, gpus_of(machine, request))});
  add({"-x", "OMP_NUM_THREADS=" + std::to_string(threads)});
  if (gpus_of(machine, request) > 0) add({"-x", "CUDA_DEVICE_ORDER=PCI_BUS_ID"});
  for (const auto& name : request.hosts.empty() ? std::vector<std::string>{} : request.exported) {
    if (name != "OMP_NUM_THREADS" && name != "CUDA_DEVICE_ORDER") add({"-x", name});
  }
  add({"-np", std::to_string(choice.num_ranks)});
  return command;
}

std::vector<std::string> srun_command(const Machine& machine, const LaunchRequest& request,
                                      const Choice& choice) {
  std::vector<std::string> command{"srun",
                                   "--mpi=pmix",
                                   "--kill-on-bad-exit=1",
                                   "--cpu-bind=none",
                                   "--nodes=" + std::to_string(std::max(1, request.num_nodes)),
                                   "--ntasks=" + std::to_string(choice.num_ranks),
                                   "--overlap"};
  // srun does not take it from the allocation (since Slurm 22.05).
  if (request.cpus_per_task > 0)
    command.push_back("--cpus-per-task=" + std::to_string(request.cpus_per_task));
  if (choice.per_host > machine.num_cores) command.emplace_back("--overcommit");
  // A rank that sees its own GPU only cannot reach its neighbours' memory.
  if (gpus_of(machine, request) > 0) command.emplace_back("--gpu-bind=none");
  if (request.labels == LineLabels::kRank) command.emplace_back("--label");
  return command;
}

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_-+=.,:/@%").find(c) != std::string_view::npos;
}
}  // namespace

LaunchPlan plan_launch(const Machine& whole_machine, const LaunchRequest& request) {
  if (request.num_ranks < 0) throw UsageError("-n must be positive.");
  Machine machine = whole_machine;
  if (request.cpus_on_node > 0)
    machine.num_cores = std::min(machine.num_cores, request.cpus_on_node);
  const Choice choice = choose(machine, request);
  LaunchPlan plan;
  plan.num_ranks = choice.num_ranks;
  plan.starter = request.starter;
  plan.threads_per_rank = request.cpus_per_task > 0
                              ? request.cpus_per_task
                              : std::max(1, machine.num_cores / std::max(1, choice.per_host));
  plan.environment = request.environment;
  if (request.starter == Starter::kSrun) {
    plan.command = srun_command(machine, request, choice);
    plan.settings = {{"OMP_NUM_THREADS", std::to_string(plan.threads_per_rank)}};
    if (gpus_of(machine, request) > 0)
      plan.settings.emplace_back("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
  } else {
    plan.command = mpirun_command(machine, request, choice, plan.threads_per_rank);
  }
  plan.command.push_back(request.program);
  plan.command.insert(plan.command.end(), request.arguments.begin(), request.arguments.end());
  plan.explanation = choice.why + ", " + plural(plan.threads_per_rank, "thread") + " each";
  if (request.build == Build::kCpu && !machine.gpus.empty()) {
    plan.explanation += "; " + plural(static_cast<int>(machine.gpus.size()), "GPU") +
                        " left unused, since this build is for CPUs";
  }
  return plan;
}

std::string shell_quoted(const std::string& word) {
  if (!word.empty() && std::ranges::all_of(word, is_plain)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string shell_line(const LaunchPlan& plan) {
  std::string line;
  for (const auto& [name, value] : plan.settings) line += name + "=" + shell_quoted(value) + " ";
  for (size_t i = 0; i < plan.command.size(); ++i)
    line += (i > 0 ? " " : "") + shell_quoted(plan.command[i]);
  return line;
}
}  // namespace trireme
