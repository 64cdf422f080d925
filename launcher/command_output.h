#pragma once
#include <string>
#include <vector>

namespace trireme {

struct CommandOutput {
  int exit_code = 127;  // 127: there is no such program; 124: it ran into the limit.
  std::string text;     // stdout and stderr together.
};

// Runs a command without a shell, in a process group of its own that ends with the limit.
[[nodiscard]] CommandOutput output_of(const std::vector<std::string>& command,
                                      int limit_seconds = 10);
}  // namespace trireme
