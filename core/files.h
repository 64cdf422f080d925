#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace trireme {

// An open file descriptor, closed on destruction.
class File {
 public:
  // Opens for reading; throws InputError naming the file and what `what` (say "dataset") it was.
  [[nodiscard]] static File open_for_reading(const std::filesystem::path& path,
                                             std::string_view what);
  // Creates or truncates for writing; throws UsageError (no permission, no space) naming the file.
  [[nodiscard]] static File create(const std::filesystem::path& path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] uint64_t size_bytes() const;
  void read_at(uint64_t offset_bytes, std::span<std::byte> out) const;  // Whole or InputError.
  void write_at(uint64_t offset_bytes, std::span<const std::byte> in) const;  // Whole or Error.
  void sync() const;                                                          // fsync
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  File(int descriptor, std::filesystem::path path);
  int descriptor_ = -1;
  std::filesystem::path path_;
};

[[nodiscard]] std::string read_text_file(const std::filesystem::path& path, std::string_view what,
                                         uint64_t max_bytes = uint64_t{64} << 20);
// Writes beside, syncs, renames over `path` and syncs the folder: whole or not at all.
void write_text_file_atomically(const std::filesystem::path& path, std::string_view text);
void sync_folder(const std::filesystem::path& folder);
}  // namespace trireme
