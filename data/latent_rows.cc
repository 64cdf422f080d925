#include "data/latent_rows.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "data/xxh3.h"

namespace trireme {
namespace {
[[noreturn]] void fail(const std::filesystem::path& file, const char* what) {
  throw UsageError("cannot " + std::string(what) + " \"" + file.string() +
                   "\": " + std::strerror(errno) +
                   ". Give a place with enough space that every rank can write to.");
}
}  // namespace

void LatentRowWriter::DescriptorCloser::destroy(int descriptor) noexcept { ::close(descriptor); }

LatentRowWriter::LatentRowWriter(const std::filesystem::path& file, const LatentFileLayout& layout,
                                 RowSizes sizes)
    : file_(file),
      layout_(layout),
      sizes_(sizes),
      descriptor_(::open(file.c_str(), O_WRONLY | O_CLOEXEC)) {
  if (!descriptor_) fail(file_, "open");
}

void LatentRowWriter::write_latent(int64_t row, std::span<const uint16_t> halves) const {
  check(row >= 0 && static_cast<int64_t>(halves.size()) == sizes_.latents, "a whole latent");
  const auto index = static_cast<uint64_t>(row);
  write_at(layout_.latents_offset_bytes + index * halves.size_bytes(), std::as_bytes(halves));
  const uint64_t checksum = XXH3_64bits(halves.data(), halves.size_bytes());
  write_at(layout_.xxh3_offset_bytes + index * sizeof checksum,
           std::as_bytes(std::span(&checksum, 1)));
}

void LatentRowWriter::write_prompt_embeds(int64_t row, std::span<const uint16_t> halves) const {
  check(row >= 0 && static_cast<int64_t>(halves.size()) == sizes_.prompt_embeds,
        "a whole text embedding");
  write_at(layout_.prompt_embeds_offset_bytes + static_cast<uint64_t>(row) * halves.size_bytes(),
           std::as_bytes(halves));
}

void LatentRowWriter::write_at(uint64_t offset_bytes, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written =
        ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(file_, "write to");
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset_bytes += static_cast<uint64_t>(written);
  }
}

void LatentRowWriter::sync() const {
  if (::fsync(descriptor_.get()) != 0) fail(file_, "write");
}
}  // namespace trireme
