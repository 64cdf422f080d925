#include "launcher/rank_placement.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include <unistd.h>

#include "dist/mpi_environment.h"

namespace trireme {
namespace {
std::string text_of(const CpuList& cpus) {
  std::string text;
  for (const int cpu : cpus) text += std::to_string(cpu) + " ";
  return text;
}

// What each rank of this rank's host says of itself, in rank order. Collective.
std::vector<std::string> gather_on_host(MpiEnvironment& mpi, const std::string& mine) {
  const std::string prefix = mpi.host_name() + "\n";
  std::vector<std::string> texts;
  for (const auto& text : mpi.gather_strings(prefix + mine)) {
    if (text.starts_with(prefix)) texts.push_back(text.substr(prefix.size()));
  }
  return texts;
}
}  // namespace

RankPlacement place_this_rank(MpiEnvironment& mpi, const Machine& machine) {
  const auto masks = gather_on_host(mpi, text_of(current_cpus()));
  const bool are_equal = std::ranges::adjacent_find(masks, std::not_equal_to<>()) == masks.end();
  if (!are_equal) return place_ranks(machine, 1).front();
  return place_ranks(machine, mpi.local_size())[static_cast<size_t>(mpi.local_rank())];
}

void confine_rank(const RankPlacement& placement) {
  const char* threads = std::getenv("OMP_NUM_THREADS");
  const size_t num_threads =
      threads == nullptr ? 1 : static_cast<size_t>(std::max(1, std::atoi(threads)));
  confine_thread(num_threads <= placement.compute.size() ? placement.compute : placement.cpus);
  prefer_memory_of(placement.numa_node);
}

std::vector<pid_t> peers_on_this_host(MpiEnvironment& mpi) {
  std::error_code error;
  const std::string space =
      std::filesystem::read_symlink("/proc/self/ns/pid", error).string() + "\n";
  std::vector<pid_t> peers;
  for (const auto& text : gather_on_host(mpi, space + std::to_string(getpid()))) {
    if (error || !text.starts_with(space)) return {};
    const pid_t process = std::atoi(text.c_str() + space.size());
    if (process != getpid()) peers.push_back(process);
  }
  return peers;
}
}  // namespace trireme
