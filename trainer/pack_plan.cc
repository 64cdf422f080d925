#include "trainer/pack_plan.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kMaxCaptionBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxJsonlBytes = uint64_t{8} << 30;
constexpr int64_t kMaxPixels = int64_t{1} << 28;  // Of a picture after resizing.

enum class FileKind { kPicture, kCaption, kOther };

FileKind kind_of(const fs::path& file) {
  std::string extension = file.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return std::tolower(c); });
  if (extension == ".png" || extension == ".jpg" || extension == ".jpeg") return FileKind::kPicture;
  return extension == ".txt" || extension == ".jsonl" ? FileKind::kCaption : FileKind::kOther;
}

// Whether `text` is UTF-8 (RFC 3629).
bool is_utf8(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  for (size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    const size_t length = first < 0x80   ? 1
                          : first < 0xc2 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf5 ? 4
                                         : 0;
    if (length == 0) return false;
    unsigned low = 0x80;
    unsigned high = 0xbf;  // Of the second byte.
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    for (size_t k = 1; k < length; ++k) {
      if (byte(i + k) < low || byte(i + k) > high) return false;
      low = 0x80;
      high = 0xbf;
    }
    i += length;
  }
  return true;
}

void add_caption(PictureEntry& picture, std::string caption) {
  if (!is_utf8(caption)) {
    picture.problem = "its caption is not UTF-8 text";
  } else if (caption.find('\0') != std::string::npos) {
    picture.problem = "its caption contains a zero byte";
  }
  picture.captions.push_back(std::move(caption));
}

using Pictures = std::map<std::string, PictureEntry>;  // By id.

template <typename Iterator>
int64_t collect(const fs::path& folder, Pictures& pictures) {
  int64_t num_other = 0;
  std::error_code error;
  Iterator it(folder, fs::directory_options::follow_directory_symlink, error);
  for (; !error && it != Iterator(); it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored)) continue;
    const FileKind kind = kind_of(it->path());
    if (kind == FileKind::kOther) ++num_other;
    if (kind != FileKind::kPicture) continue;
    std::string id = it->path().lexically_relative(folder).generic_string();
    pictures[id].id = id;
  }
  if (error) {
    throw InputError("cannot list the pictures of \"" + folder.string() + "\": " + error.message() +
                     ". Give a folder that exists and can be read in --images.");
  }
  return num_other;
}

void read_caption_beside(const fs::path& folder, PictureEntry& picture) {
  fs::path file = folder / picture.id;
  file.replace_extension(".txt");
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return;
  try {
    std::string text = read_text_file(file, "caption", kMaxCaptionBytes);
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
    add_caption(picture, std::move(text));
  } catch (const InputError& error) {
    picture.problem = error.what();
  }
}

// A name that stays in the folder, or nullopt.
std::optional<std::string> inner_name(const std::string& name) {
  const fs::path path = fs::path(name).lexically_normal();
  if (name.empty() || path.is_absolute() || path.begin()->string() == "..") return std::nullopt;
  return path.generic_string();
}

void read_caption_lines(const fs::path& file, Pictures& pictures) {
  const std::string text = read_text_file(file, "captions", kMaxJsonlBytes);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = "line " + std::to_string(number);
    const auto json = parse_json_object(line, file, place);
    const auto fail = [&](const std::string& problem) {
      throw InputError("The captions file " + file.string() + " has in " + place + " " + problem +
                       "; each line is like {\"file_name\": \"cat.png\", \"text\": \"a cat\"}.");
    };
    const auto name = json.find("file_name");
    if (name == json.end() || !name->is_string()) fail("no file_name that is a string");
    const auto id = inner_name(name->get<std::string>());
    if (!id) fail("a file_name that is not inside the folder of pictures");
    PictureEntry& picture = pictures[*id];
    picture.id = *id;
    const auto caption = json.find("text");
    if (caption == json.end() || caption->is_null()) continue;
    if (!caption->is_string()) fail("a text that is not a string");
    add_caption(picture, caption->get<std::string>());
  }
}
}  // namespace

PictureListing list_pictures(const fs::path& folder, const std::optional<fs::path>& captions_jsonl,
                             Subfolders subfolders) {
  Pictures pictures;
  PictureListing listing;
  listing.num_other_files = subfolders == Subfolders::kSearched
                                ? collect<fs::recursive_directory_iterator>(folder, pictures)
                                : collect<fs::directory_iterator>(folder, pictures);
  if (captions_jsonl) read_caption_lines(*captions_jsonl, pictures);
  for (auto& [id, picture] : pictures) {
    if (!captions_jsonl) read_caption_beside(folder, picture);
    if (picture.captions.empty()) ++listing.num_without_caption;
    listing.pictures.push_back(std::move(picture));
  }
  if (listing.pictures.empty()) {
    throw InputError("the folder \"" + folder.string() +
                     "\" holds no pictures (.png, .jpg, .jpeg). Give another --images, or "
                     "--recursive to look into its folders.");
  }
  return listing;
}

CaptionTable number_captions(const std::vector<PictureEntry>& pictures) {
  CaptionTable table{.captions = {""}, .rows = {}};
  std::unordered_map<std::string, int32_t> numbers = {{"", 0}};
  for (const auto& picture : pictures) {
    auto& rows = table.rows.emplace_back();
    for (const auto& caption : picture.captions) {
      const auto [place, fresh] =
          numbers.emplace(caption, static_cast<int32_t>(table.captions.size()));
      if (fresh) table.captions.push_back(caption);
      check(table.captions.size() < std::numeric_limits<int32_t>::max(),
            "fewer than 2^31 captions");
      rows.push_back(place->second);
    }
    if (rows.empty()) rows.push_back(0);
  }
  return table;
}

Image read_picture(const fs::path& file, int64_t resolution) {
  Image image = read_image(file);
  const int64_t shorter = std::min(image.width, image.height);
  const int64_t longer = std::max(image.width, image.height);
  if (longer > shorter * (kMaxPixels / (resolution * resolution))) {
    throw InputError("the picture \"" + file.string() + "\" of " + std::to_string(image.width) +
                     "x" + std::to_string(image.height) +
                     " pixels is too elongated to be resized; crop it.");
  }
  return image;
}
}  // namespace trireme
