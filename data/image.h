#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace trireme {

// 8-bit RGB, row-major, interleaved.
struct Image {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> pixels;  // (H, W, 3)
};

// PNG (any depth and colour type, interlaced too) or JPEG (grey, YCbCr, CMYK), by content and not
// by name; transparency is laid over white. Of 16 bits the upper 8 are kept; colour profiles, gamma
// and the rotation tag are ignored. A file that is truncated, or damaged so that pixels would be
// made up, or has more than 2^28 pixels is an error. Throws InputError naming the file and the
// reason.
[[nodiscard]] Image read_image(const std::filesystem::path& file);

// A text chunk of a PNG: a keyword of at most 79 Latin-1 characters, and UTF-8.
struct ImageText {
  std::string keyword;
  std::string text;
};

// Written beside and renamed; empty texts are left out. Throws UsageError.
void write_png(const std::filesystem::path& file, const Image& image,
               const std::vector<ImageText>& texts = {});

// Lanczos (a = 3) with antialiasing, as Pillow's Image.resize(LANCZOS) computes it on 8-bit images:
// horizontal pass first, coefficients in 22-bit fixed point, 8 bits between the passes. Bit-equal
// to Pillow, whose version 13 begins with the vertical pass where that is faster: to its two
// passes, then, asked for one after the other.
[[nodiscard]] Image resize_lanczos(const Image& image, int64_t width, int64_t height);

// Shorter side to `resolution`, longer side rounded to nearest (ties to even), then the centre
// square, cut at floor((side - resolution) / 2).
[[nodiscard]] Image resize_and_centre_crop(const Image& image, int64_t resolution);
}  // namespace trireme
