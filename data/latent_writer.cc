#include "data/latent_writer.h"

#include <algorithm>

#include "core/error.h"
#include "data/hdf5_writing.h"

namespace trireme {
namespace {

using hdf5::FileWriter;
using Number = FileWriter::Number;

void require(bool holds, const std::filesystem::path& file, const std::string& what) {
  if (holds) return;
  throw InputError("cannot write the dataset " + file.string() + ": " + what + ".");
}

// A zero byte would end a stored string early.
void require_storable(const std::filesystem::path& file, const std::vector<std::string>& texts,
                      const std::string& what) {
  for (size_t i = 0; i < texts.size(); ++i) {
    require(texts[i].find('\0') == std::string::npos, file,
            what + " " + std::to_string(i) + " contains a zero byte; remove it");
  }
}

void validate(const std::filesystem::path& file, const LatentFileHeader& header) {
  require(!header.ids.empty(), file, "there are no samples; give at least one picture");
  check(header.caption_rows.size() == header.ids.size(), "one list of captions a sample");
  check(header.shape.channels > 0 && header.shape.height > 0 && header.shape.width > 0,
        "latents have a shape");
  check(header.text_length >= 0 && header.text_width >= 0 && header.pooled_width >= 0 &&
            (header.text_length == 0) == (header.text_width == 0),
        "text has both a length and a width, or neither");
  check(!header.captions.empty() || (header.text_length == 0 && header.pooled_width == 0),
        "text comes with captions");
  require_storable(file, header.ids, "the name of sample");
  require_storable(file, header.captions, "caption");
  const auto num_captions = static_cast<int64_t>(header.captions.size());
  for (const auto& rows : header.caption_rows) {
    for (const int32_t row : rows) check(row >= 0 && row < num_captions, "captions are listed");
  }
}

// (N) where every sample has one caption, else (N, K), padded with -1.
void write_caption_index(FileWriter& writer, const LatentFileHeader& header) {
  size_t width = 1;
  for (const auto& rows : header.caption_rows) width = std::max(width, rows.size());
  const size_t num_samples = header.ids.size();
  std::vector<int32_t> index(num_samples * width, -1);
  for (size_t i = 0; i < num_samples; ++i) {
    std::copy(header.caption_rows[i].begin(), header.caption_rows[i].end(),
              index.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  std::vector<uint64_t> shape = {num_samples};
  if (width > 1) shape.push_back(width);
  writer.write_dataset("/caption_index", shape, index);
}

void write_root_attributes(FileWriter& writer, const LatentFileHeader& header) {
  writer.write_attribute("/", "format", std::string("trireme-latents"));
  writer.write_attribute("/", "version", int64_t{1});
  writer.write_attribute("/", "scaling_factor", header.scaling_factor);
  writer.write_attribute("/", "shift_factor", header.shift_factor);
  writer.write_attribute("/", "vae", header.vae);
  for (const auto& [name, value] : header.provenance) {
    check(value.find('\0') == std::string::npos, "provenance is text");
    writer.write_attribute("/", name, value);
  }
}
}  // namespace

LatentFileLayout create_latent_file(const std::filesystem::path& file,
                                    const LatentFileHeader& header) {
  validate(file, header);
  FileWriter writer(file);
  write_root_attributes(writer, header);

  const auto num_samples = static_cast<uint64_t>(header.ids.size());
  const auto num_captions = static_cast<uint64_t>(header.captions.size());
  const bool is_moments = header.kind == LatentKind::kMoments;
  const auto channels = static_cast<uint64_t>(header.shape.channels) * (is_moments ? 2 : 1);

  LatentFileLayout layout;
  layout.latents_offset_bytes =
      writer.allocate_dataset("/latents", Number::kFloat16,
                              {num_samples, channels, static_cast<uint64_t>(header.shape.height),
                               static_cast<uint64_t>(header.shape.width)});
  if (is_moments) writer.write_attribute("/latents", "kind", std::string("moments"));
  layout.xxh3_offset_bytes = writer.allocate_dataset("/xxh3", Number::kUint64, {num_samples});
  writer.write_strings("/ids", header.ids);
  if (num_captions > 0) {
    write_caption_index(writer, header);
    writer.create_group("/text");
    writer.write_strings("/text/captions", header.captions);
  }
  if (header.text_length > 0) {
    layout.prompt_embeds_offset_bytes =
        writer.allocate_dataset("/text/prompt_embeds", Number::kFloat16,
                                {num_captions, static_cast<uint64_t>(header.text_length),
                                 static_cast<uint64_t>(header.text_width)});
  }
  if (header.pooled_width > 0) {
    layout.pooled_offset_bytes =
        writer.allocate_dataset("/text/pooled_prompt_embeds", Number::kFloat16,
                                {num_captions, static_cast<uint64_t>(header.pooled_width)});
  }
  writer.close();
  return layout;
}
}  // namespace trireme
