#pragma once
#include <string>

namespace trireme {

// The text that printf would print; of any length.
[[gnu::format(printf, 1, 2)]] [[nodiscard]] std::string formatted(const char* format, ...);
}  // namespace trireme
