#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "core/handle.h"
#include "data/latent_writer.h"

namespace trireme {

// Fills the rows of a file that create_latent_file() made, by offset and without HDF5: several
// processes and threads may do so at once, each row once. Failures throw UsageError naming the
// file.
class LatentRowWriter {
 public:
  // Counts are in elements a row, of the datasets as they are stored.
  struct RowSizes {
    int64_t latents = 0;
    int64_t prompt_embeds = 0;  // 0 where the file has no text.
  };
  LatentRowWriter(const std::filesystem::path& file, const LatentFileLayout& layout,
                  RowSizes sizes);

  // Half-precision numbers as bits. Writes the row's checksum too.
  void write_latent(int64_t row, std::span<const uint16_t> halves) const;
  void write_prompt_embeds(int64_t row, std::span<const uint16_t> halves) const;
  void sync() const;  // To disk.

 private:
  struct DescriptorCloser {
    static int null() { return -1; }
    static void destroy(int descriptor) noexcept;
  };
  void write_at(uint64_t offset_bytes, std::span<const std::byte> bytes) const;

  std::filesystem::path file_;
  LatentFileLayout layout_;
  RowSizes sizes_;
  UniqueHandle<int, DescriptorCloser> descriptor_{-1};
};
}  // namespace trireme
