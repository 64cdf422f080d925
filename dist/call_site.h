#pragma once
#include <source_location>
#include <string>
#include <string_view>

namespace trireme {
// "function (file.cc:12)", for messages.
[[nodiscard]] inline std::string call_site_text(const std::source_location& where) {
  const std::string_view path = where.file_name();
  const std::string file(path.substr(path.rfind('/') + 1));  // npos + 1 is 0.
  return std::string(where.function_name()) + " (" + file + ":" + std::to_string(where.line()) +
         ")";
}
}  // namespace trireme
