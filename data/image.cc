#include "data/image.h"

#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "data/image_codec.h"

namespace trireme {
namespace {

constexpr uint64_t kFileSizeMaxBytes = uint64_t{1} << 31;

[[noreturn]] void throw_unreadable(const std::filesystem::path& file, const std::string& reason) {
  throw InputError("cannot read the picture " + file.string() + ": " + reason +
                   ". Mend, replace or remove it.");
}

// What a file is that is neither PNG nor JPEG, for the message.
std::string guess_format(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("GIF8")) return "GIF";
  if (text.starts_with("RIFF") && text.substr(0, 16).find("WEBP") == 8) return "WebP";
  if (text.starts_with("BM")) return "BMP";
  if (text.starts_with("II*") || text.starts_with("MM")) return "TIFF";
  if (text.substr(0, 12).find("ftyp") == 4) return "HEIF or AVIF";
  return {};
}
}  // namespace

Image read_image(const std::filesystem::path& file) {
  const File input = File::open_for_reading(file, "picture");
  const uint64_t size = input.size_bytes();
  if (size == 0) throw_unreadable(file, "it is empty");
  if (size > kFileSizeMaxBytes) throw_unreadable(file, "it is larger than 2 GiB");
  std::vector<std::byte> bytes(size);
  input.read_at(0, bytes);
  try {
    if (internal::is_png(bytes)) return internal::decode_png(bytes);
    if (internal::is_jpeg(bytes)) return internal::decode_jpeg(bytes);
  } catch (const internal::DecodeFailure& failure) {
    throw_unreadable(file, failure.reason);
  }
  const std::string format = guess_format(bytes);
  throw_unreadable(file, format.empty()
                             ? "it is neither a PNG nor a JPEG file"
                             : "it is a " + format + " file; only PNG and JPEG are read");
}

void write_png(const std::filesystem::path& file, const Image& image,
               const std::vector<ImageText>& texts) {
  check(image.width > 0 && image.height > 0 &&
            image.pixels.size() == 3 * static_cast<size_t>(image.width * image.height),
        "an image's pixels match its size");
  try {
    write_text_file_atomically(file, internal::encode_png(image, texts));
  } catch (const internal::DecodeFailure& failure) {
    throw UsageError("cannot write the picture " + file.string() + ": " + failure.reason + ".");
  }
}
}  // namespace trireme
