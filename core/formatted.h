#pragma once
#include <cstdint>
#include <string>

namespace trireme {

// The text that printf would print; of any length.
[[gnu::format(printf, 1, 2)]] [[nodiscard]] std::string formatted(const char* format, ...);

// "0123456789abcdef"
[[nodiscard]] std::string checksum_text(uint64_t checksum);

// `value`; a NaN without its sign, which is chance and which printf would show.
[[nodiscard]] double unsigned_nan(double value) noexcept;
}  // namespace trireme
