#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace trireme {

struct HostSlots {
  std::string host;
  int num_ranks = 0;  // 0: one per GPU, as on this host.
};

// Reads "a:4,b:4"; UsageError where it is not that.
[[nodiscard]] std::vector<HostSlots> parse_hosts(const std::string& text);

// Reads a host file: a host a line, with "slots=4" or ":4" behind it or neither; a host named on
// several lines (as PBS writes them) has a rank for each. "#" begins a comment. UsageError naming
// file and line.
[[nodiscard]] std::vector<HostSlots> read_hostfile(const std::filesystem::path& file);
}  // namespace trireme
