#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/image.h"

namespace trireme {

enum class Subfolders { kIgnored, kSearched };

// A picture to be packed.
struct PictureEntry {
  std::string id;                     // File name, relative to the folder of pictures.
  std::vector<std::string> captions;  // As they were written; none: the empty prompt.
  std::string problem;                // Why its captions cannot be used; "" where they can.
};

struct PictureListing {
  std::vector<PictureEntry> pictures;  // By id, in byte order.
  int64_t num_without_caption = 0;
  int64_t num_other_files = 0;  // Neither pictures nor captions, by name.
};

// The PNG and JPEG files of `folder` with their captions: from NAME.txt beside each (one line end
// at its end is not part of it), or from the lines of `captions_jsonl`, objects with `file_name`
// and `text`; several lines on one picture are several captions, and a picture that only stands
// there is listed too. Local. Throws InputError.
[[nodiscard]] PictureListing list_pictures(
    const std::filesystem::path& folder, const std::optional<std::filesystem::path>& captions_jsonl,
    Subfolders subfolders);

// The distinct captions in the order of their first use, after the empty prompt, and for each
// picture the rows of its captions in that list.
struct CaptionTable {
  std::vector<std::string> captions;  // Row 0 is "".
  std::vector<std::vector<int32_t>> rows;
};
[[nodiscard]] CaptionTable number_captions(const std::vector<PictureEntry>& pictures);

// Reads a picture, and throws InputError also where it is so elongated that it cannot be resized.
[[nodiscard]] Image read_picture(const std::filesystem::path& file, int64_t resolution);
}  // namespace trireme
