#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace trireme {

// Parses `text` as one JSON object. Throws InputError naming `file` and `what` for malformed text,
// a key that stands twice in one object, or nesting deeper than `max_depth`. Never recurses.
[[nodiscard]] nlohmann::json parse_json_object(std::string_view text,
                                               const std::filesystem::path& file,
                                               std::string_view what, int max_depth = 64);

// The same for a whole file of at most 64 MiB.
[[nodiscard]] nlohmann::json read_json_object(const std::filesystem::path& file,
                                              std::string_view what);
}  // namespace trireme
