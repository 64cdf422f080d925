#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace trireme {

// manifest.json of a checkpoint (docs/checkpoint_format.md): every other file with size and
// SHA-256.
struct Manifest {
  static constexpr std::string_view kFileName = "manifest.json";
  struct Entry {
    uint64_t size_bytes = 0;
    std::string sha256;  // 64 lower-case digits
  };
  int64_t step = 0;
  std::map<std::string, Entry> files;  // By path in the folder, '/' between.
};

// Sizes and checksums of all files below `folder`, read back from disk; syncs its folders.
[[nodiscard]] Manifest describe_folder(const std::filesystem::path& folder, int64_t step);
[[nodiscard]] std::string manifest_json(const Manifest& manifest);
// Throws InputError naming what is missing or malformed.
[[nodiscard]] Manifest read_manifest(const std::filesystem::path& folder);

// A path that stays in its folder: relative, not empty, without "." and "..".
[[nodiscard]] bool is_plain_path(std::string_view path);
}  // namespace trireme
