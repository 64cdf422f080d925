#include <algorithm>
#include <charconv>
#include <string_view>

#include "core/error.h"
#include "launcher/topology.h"

namespace trireme {
namespace {
constexpr int kCoresPerRankByDefault = 2;
constexpr int kMostRanksByDefault = 8;

std::string plural(int count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
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
  const auto add = [&command](std::initializer_list<const char*> words) {
    command.insert(command.end(), words.begin(), words.end());
  };
  if (request.user == User::kRoot) add({"--allow-run-as-root"});
  // Its reports on ranks that end with a code hide the one paragraph that matters.
  if (request.hosts.empty()) add({"--quiet"});
  // mpirun would bind each rank to one core; ranks with a GPU bind themselves near it.
  add({"--bind-to", "none"});
  if (choice.per_host > machine.num_cores)
    add({"--oversubscribe", "--mca", "mpi_yield_when_idle", "1"});
  if (!request.hosts.empty()) {
    command.insert(command.end(), {"--host", host_list(request, gpus_of(machine, request))});
  }
  command.insert(command.end(), {"-x", "OMP_NUM_THREADS=" + std::to_string(threads)});
  if (gpus_of(machine, request) > 0) add({"-x", "CUDA_DEVICE_ORDER=PCI_BUS_ID"});
  command.insert(command.end(), {"-np", std::to_string(choice.num_ranks)});
  return command;
}

std::vector<std::string> srun_command(const LaunchRequest& request, const Choice& choice) {
  return {"srun",
          "--mpi=pmix",
          "--kill-on-bad-exit=1",
          "--cpu-bind=none",
          "--nodes=" + std::to_string(std::max(1, request.num_nodes)),
          "--ntasks=" + std::to_string(choice.num_ranks)};
}

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_-+=.,:/@%").find(c) != std::string_view::npos;
}
}  // namespace

std::vector<HostSlots> parse_hosts(const std::string& text) {
  std::vector<HostSlots> hosts;
  size_t first = 0;
  while (first <= text.size()) {
    const size_t last = std::min(text.find(',', first), text.size());
    const std::string entry = text.substr(first, last - first);
    first = last + 1;
    const size_t colon = entry.find(':');
    HostSlots host{.host = entry.substr(0, colon), .num_ranks = 0};
    bool is_good =
        !host.host.empty() && host.host.front() != '-' && std::ranges::all_of(host.host, is_plain);
    if (colon != std::string::npos) {
      const char* end = entry.data() + entry.size();
      const auto result = std::from_chars(entry.data() + colon + 1, end, host.num_ranks);
      is_good = is_good && result.ec == std::errc() && result.ptr == end && host.num_ranks > 0;
    }
    if (!is_good) {
      throw UsageError("--hosts: '" + entry +
                       "' is not HOST:RANKS. Write them as in --hosts node1:4,node2:4.");
    }
    hosts.push_back(std::move(host));
  }
  return hosts;
}

LaunchPlan plan_launch(const Machine& machine, const LaunchRequest& request) {
  if (request.num_ranks < 0) throw UsageError("-n must be positive.");
  const Choice choice = choose(machine, request);
  LaunchPlan plan;
  plan.num_ranks = choice.num_ranks;
  plan.threads_per_rank = std::max(1, machine.num_cores / std::max(1, choice.per_host));
  const std::string threads = std::to_string(plan.threads_per_rank);
  if (request.starter == Starter::kSrun) {
    plan.command = srun_command(request, choice);
    plan.environment = {{"OMP_NUM_THREADS", threads}};
    if (gpus_of(machine, request) > 0)
      plan.environment.emplace_back("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
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
  for (const auto& [name, value] : plan.environment) line += name + "=" + shell_quoted(value) + " ";
  for (size_t i = 0; i < plan.command.size(); ++i)
    line += (i > 0 ? " " : "") + shell_quoted(plan.command[i]);
  return line;
}
}  // namespace trireme
