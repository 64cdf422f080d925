#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/files.h"

namespace trireme {

// One safetensors file, or the shards of a `*.safetensors.index.json`, opened for reading. Owns the
// open files. Header length, JSON, dtypes (F32, F16, BF16, F64, I64, I32, I16, I8, U8, BOOL),
// shapes and offsets are validated before a tensor is allocated: docs/weights.md. Local; const
// methods are thread-safe.
class SafetensorsReader {
 public:
  struct Entry {
    at::ScalarType dtype;
    std::vector<int64_t> shape;
    uint64_t offset_bytes;  // In its file.
    uint64_t size_bytes;
    size_t file_index;
  };
  // `path`: a .safetensors file, or an index .json, whose shards must lie beside it. Throws
  // InputError naming the file.
  explicit SafetensorsReader(const std::filesystem::path& path);

  [[nodiscard]] const std::map<std::string, Entry>& entries() const noexcept { return entries_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept {
    return metadata_;
  }
  [[nodiscard]] bool contains(const std::string& name) const { return entries_.contains(name); }
  // A fresh CPU tensor with the stored dtype. Throws InputError for a missing name or short file.
  [[nodiscard]] at::Tensor read(const std::string& name) const;
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const noexcept { return files_; }

 private:
  void open_file(const std::filesystem::path& file);
  void open_index(const std::filesystem::path& index);
  void add_entry(const std::string& name, Entry entry);

  std::vector<std::filesystem::path> files_;
  std::vector<File> handles_;  // One for each of files_.
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes each tensor in its own dtype, larger elements first, then by name (so that every tensor is
// aligned), the header padded to 8 bytes, and syncs the file. The same tensors give the same bytes.
// Throws UsageError where the file system refuses.
void write_safetensors(const std::filesystem::path& file, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
}  // namespace trireme
