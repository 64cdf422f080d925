#include <csetjmp>
#include <cstdio>
#include <vector>

// jpeglib.h needs <cstdio> before it, jerror.h needs jpeglib.h.
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "data/image_codec.h"

namespace trireme::internal {
namespace {

// Progressive files with more scans than that only cost time.
constexpr int kNumScansMax = 500;

struct JpegError {
  jpeg_error_mgr manager;  // First: libjpeg hands out a pointer to it.
  std::jmp_buf jump;
  char reason[JMSG_LENGTH_MAX] = "";
};

[[noreturn]] void on_error(j_common_ptr common) {
  auto* error = reinterpret_cast<JpegError*>(common->err);
  common->err->format_message(common, error->reason);
  std::longjmp(error->jump, 1);
}

// libjpeg goes on after damage to the picture's data with a warning and makes pixels up.
bool is_damage(int message_code) {
  switch (message_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      return true;
    default:
      return false;
  }
}

void on_message(j_common_ptr common, int level) {
  if (level < 0 && is_damage(common->err->msg_code)) on_error(common);
}

void on_progress(j_common_ptr common) {
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(common);
  if (decoder->input_scan_number <= kNumScansMax) return;
  auto* error = reinterpret_cast<JpegError*>(common->err);
  std::snprintf(error->reason, sizeof error->reason, "it has more than %d scans", kNumScansMax);
  std::longjmp(error->jump, 1);
}

// As in png_codec.cc: what has a destructor lives in members, for libjpeg's errors come by longjmp.
class JpegReader {
 public:
  explicit JpegReader(std::span<const std::byte> file) : file_(file) {
    decoder_.err = jpeg_std_error(&error_.manager);
    error_.manager.error_exit = on_error;
    error_.manager.emit_message = on_message;
    progress_.progress_monitor = on_progress;
  }
  ~JpegReader() {
    if (is_created_) jpeg_destroy_decompress(&decoder_);
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  Image decode() {
    if (!read_header()) throw DecodeFailure{error_.reason};
    const uint64_t num_pixels = uint64_t{decoder_.image_width} * decoder_.image_height;
    if (num_pixels > kNumPixelsMax) {
      throw DecodeFailure{"it has " + std::to_string(decoder_.image_width) + " x " +
                          std::to_string(decoder_.image_height) +
                          " pixels, more than the limit of 2^28"};
    }
    num_channels_ = decoder_.out_color_space == JCS_CMYK ? 4 : 3;
    row_.resize(size_t{decoder_.image_width} * num_channels_);
    image_.width = decoder_.image_width;
    image_.height = decoder_.image_height;
    image_.pixels.resize(3 * num_pixels);
    if (!read_pixels()) throw DecodeFailure{error_.reason};
    return std::move(image_);
  }

 private:
  bool read_header() {
    if (setjmp(error_.jump) != 0) return false;
    jpeg_create_decompress(&decoder_);
    is_created_ = true;
    decoder_.progress = &progress_;
    jpeg_mem_src(&decoder_, reinterpret_cast<const unsigned char*>(file_.data()), file_.size());
    jpeg_read_header(&decoder_, TRUE);
    const bool has_black =
        decoder_.jpeg_color_space == JCS_CMYK || decoder_.jpeg_color_space == JCS_YCCK;
    decoder_.out_color_space = has_black ? JCS_CMYK : JCS_RGB;
    return true;
  }

  bool read_pixels() {
    if (setjmp(error_.jump) != 0) return false;
    jpeg_start_decompress(&decoder_);
    while (decoder_.output_scanline < decoder_.output_height) {
      uint8_t* out = image_.pixels.data() + size_t{decoder_.output_scanline} * 3 * image_.width;
      JSAMPROW row = num_channels_ == 4 ? row_.data() : out;
      jpeg_read_scanlines(&decoder_, &row, 1);
      if (num_channels_ == 4) convert_inverted_cmyk(out);
    }
    jpeg_finish_decompress(&decoder_);
    return true;
  }

  // Four-channel JPEGs hold inverted values (Adobe's convention): 255 is no ink. A colour is what
  // remains of white after its ink and black, colour * key / 255 rounded in the order of Pillow's
  // conversion: key - round(ink * key / 255).
  void convert_inverted_cmyk(uint8_t* out) const {
    for (size_t x = 0; x < decoder_.image_width; ++x) {
      const uint32_t key = row_[4 * x + 3];
      for (size_t c = 0; c < 3; ++c) {
        const uint32_t ink = 255U - row_[4 * x + c];
        out[3 * x + c] = static_cast<uint8_t>(key - (ink * key + 127) / 255);
      }
    }
  }

  std::span<const std::byte> file_;
  JpegError error_ = {};
  jpeg_progress_mgr progress_ = {};
  jpeg_decompress_struct decoder_ = {};
  bool is_created_ = false;
  size_t num_channels_ = 3;
  std::vector<uint8_t> row_;
  Image image_;
};
}  // namespace

bool is_jpeg(std::span<const std::byte> file) {
  return file.size() >= 3 && file[0] == std::byte{0xff} && file[1] == std::byte{0xd8} &&
         file[2] == std::byte{0xff};
}

Image decode_jpeg(std::span<const std::byte> file) { return JpegReader(file).decode(); }
}  // namespace trireme::internal
