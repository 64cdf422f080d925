#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include <png.h>

#include "data/image_codec.h"

namespace trireme::internal {
namespace {

// What libpng's callbacks see. libpng reports an error by longjmp, so nothing with a destructor may
// live in a function that calls it: all such things live here.
struct PngState {
  std::span<const std::byte> file;
  size_t offset = 0;
  std::string encoded;
  char reason[200] = "";
};

void on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<PngState*>(png_get_error_ptr(png));
  std::snprintf(state->reason, sizeof state->reason, "%s", message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, size_t size) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  if (size > state->file.size() - state->offset) png_error(png, "the file is truncated");
  std::memcpy(out, state->file.data() + state->offset, size);
  state->offset += size;
}

void on_write(png_structp png, png_bytep bytes, size_t size) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  bool stored = true;
  try {
    state->encoded.append(reinterpret_cast<const char*>(bytes), size);
  } catch (...) {
    stored = false;
  }
  if (!stored) png_error(png, "out of memory");
}

void on_flush(png_structp) {}

class PngReader {
 public:
  explicit PngReader(std::span<const std::byte> file) {
    state_.file = file;
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &state_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  Image decode() {
    if (png_ == nullptr || info_ == nullptr) throw DecodeFailure{"libpng does not start"};
    if (!read_header()) throw DecodeFailure{state_.reason};
    const uint64_t num_pixels = uint64_t{width_} * height_;
    if (num_pixels > kNumPixelsMax) {
      throw DecodeFailure{"it has " + std::to_string(width_) + " x " + std::to_string(height_) +
                          " pixels, more than the limit of 2^28"};
    }
    pixels_.resize(num_pixels * num_channels_);
    rows_.resize(height_);
    const size_t row_bytes = size_t{width_} * num_channels_;
    for (size_t y = 0; y < height_; ++y) rows_[y] = pixels_.data() + y * row_bytes;
    if (!read_pixels()) throw DecodeFailure{state_.reason};
    if (num_channels_ == 4) lay_over_white();
    return {.width = width_, .height = height_, .pixels = std::move(pixels_)};
  }

 private:
  bool read_header() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, &state_, on_read);
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);  // The product is checked.
    png_read_info(png_, info_);
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    width_ = png_get_image_width(png_, info_);
    height_ = png_get_image_height(png_, info_);
    if (uint64_t{width_} * height_ > kNumPixelsMax) return true;  // Reported by the caller.
    png_read_update_info(png_, info_);
    num_channels_ = png_get_channels(png_, info_);
    if (png_get_bit_depth(png_, info_) != 8 || (num_channels_ != 3 && num_channels_ != 4)) {
      png_error(png_, "its pixel format is not supported");
    }
    return true;
  }

  bool read_pixels() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_read_image(png_, rows_.data());
    png_read_end(png_, nullptr);
    return true;
  }

  // round((colour * a + 255 * (255 - a)) / 255), in place from four channels to three.
  void lay_over_white() {
    const size_t num_pixels = size_t{width_} * height_;
    for (size_t i = 0; i < num_pixels; ++i) {
      const uint32_t alpha = pixels_[4 * i + 3];
      const uint32_t white = 255 * (255 - alpha) + 127;
      for (size_t c = 0; c < 3; ++c) {
        pixels_[3 * i + c] = static_cast<uint8_t>((pixels_[4 * i + c] * alpha + white) / 255);
      }
    }
    pixels_.resize(3 * num_pixels);
  }

  PngState state_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  uint32_t width_ = 0;
  uint32_t height_ = 0;
  size_t num_channels_ = 0;
  std::vector<uint8_t> pixels_;
  std::vector<png_bytep> rows_;
};

class PngWriter {
 public:
  PngWriter() {
    png_ = png_create_write_struct(PNG_LIBPNG_VER_STRING, &state_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngWriter() { png_destroy_write_struct(&png_, &info_); }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;

  std::string encode(const Image& image, const std::vector<ImageText>& texts) {
    for (const auto& text : texts) add(text);
    if (png_ == nullptr || info_ == nullptr) throw DecodeFailure{"libpng does not start"};
    if (!write(image)) throw DecodeFailure{state_.reason};
    return std::move(state_.encoded);
  }

 private:
  void add(const ImageText& text) {
    if (text.text.empty()) return;
    const bool is_ascii =
        std::ranges::all_of(text.text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    png_text chunk{};
    // Every reader knows tEXt, which is Latin-1; iTXt is UTF-8.
    chunk.compression = is_ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    chunk.key = const_cast<char*>(text.keyword.c_str());  // libpng only reads.
    chunk.text = const_cast<char*>(text.text.c_str());
    (is_ascii ? chunk.text_length : chunk.itxt_length) = text.text.size();
    chunks_.push_back(chunk);
  }

  bool write(const Image& image) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_write_fn(png_, &state_, on_write, on_flush);
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(png_, info_, static_cast<png_uint_32>(image.width),
                 static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (!chunks_.empty()) {
      png_set_text(png_, info_, chunks_.data(), static_cast<int>(chunks_.size()));
    }
    png_write_info(png_, info_);
    const size_t row_bytes = 3 * static_cast<size_t>(image.width);
    for (int64_t y = 0; y < image.height; ++y) {
      png_write_row(png_, image.pixels.data() + static_cast<size_t>(y) * row_bytes);
    }
    png_write_end(png_, info_);
    return true;
  }

  PngState state_;
  std::vector<png_text> chunks_;  // Views of the caller's texts.
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};
}  // namespace

bool is_png(std::span<const std::byte> file) {
  return file.size() >= 8 && png_sig_cmp(reinterpret_cast<png_const_bytep>(file.data()), 0, 8) == 0;
}

Image decode_png(std::span<const std::byte> file) { return PngReader(file).decode(); }

std::string encode_png(const Image& image, const std::vector<ImageText>& texts) {
  return PngWriter().encode(image, texts);
}
}  // namespace trireme::internal
