#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image.h"

// The picture formats behind data/image.h. Everything here works on memory and throws DecodeFailure
// with a bare reason, to which the caller adds the file's name.
namespace trireme::internal {

struct DecodeFailure {
  std::string reason;
};

// More pixels than that are refused before anything is allocated for them.
inline constexpr uint64_t kNumPixelsMax = uint64_t{1} << 28;

[[nodiscard]] bool is_png(std::span<const std::byte> file);
[[nodiscard]] Image decode_png(std::span<const std::byte> file);
[[nodiscard]] std::string encode_png(const Image& image, const std::vector<ImageText>& texts);

[[nodiscard]] bool is_jpeg(std::span<const std::byte> file);
[[nodiscard]] Image decode_jpeg(std::span<const std::byte> file);
}  // namespace trireme::internal
