#pragma once
#include <filesystem>
#include <string>

namespace trireme {

// What a std::filesystem call without an error_code found in its way: a folder on the path that
// may not be searched, say. It counts as an input file that cannot be used.
[[nodiscard]] inline std::string message_of(const std::filesystem::filesystem_error& error) {
  return error.path1().string() + ": " + error.code().message() +
         ". See that it is there and that this user may read it, and the folders on the way to it.";
}
}  // namespace trireme
