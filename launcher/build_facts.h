#pragma once
#include <string>
#include <utility>
#include <vector>

namespace trireme {

// What this program was built from and with, and the libraries that it runs with: name and value,
// in the order in which `--version` shows them. Local; starts neither MPI nor a device.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> build_facts();
// "trireme 0.1.0" and a line a fact.
[[nodiscard]] std::string version_text();
}  // namespace trireme
