#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/latent_batch.h"

namespace trireme {

// Buckets of equal latent shape, in all files: a global batch comes from one class.
struct ShapeClass {
  LatentShape shape;
  // Index ranges [first, first + count), ascending.
  struct Range {
    int64_t first;
    int64_t count;
  };
  std::vector<Range> ranges;
  int64_t num_samples = 0;
};

struct StoredText {
  int64_t num_captions = 0;  // U
  int64_t length = 0;        // L
  int64_t width = 0;         // D
  int64_t pooled_width = 0;  // P or 0
};

// What one file holds, for display.
struct LatentFileSummary {
  struct Bucket {
    std::string path;
    std::string kind;  // "sample" or "moments"
    std::string type;  // "float16" or "float32"
    LatentShape shape;
    int64_t num_samples = 0;
    int64_t num_captions = 0;             // K; 0: no caption_index.
    std::vector<std::string> companions;  // "labels", "ids", "add_time_ids", "xxh3" where present.
    // XXH3 of the rows' own checksums, where the file has them and no more than are held in memory.
    std::optional<uint64_t> checksum;
  };
  std::filesystem::path path;
  std::vector<std::pair<std::string, std::string>> attributes;  // Of the root, as text.
  std::vector<Bucket> buckets;
  StoredText text;  // All 0 where the file has none.
};

// A set of latent files (docs/dataset_format.md) as one list of samples. Opened and validated by
// HDF5, then read by offset with pread where the layout allows. Local. Const methods are
// thread-safe.
class LatentDataset {
 public:
  // Throws InputError naming file and dataset; also where the files' text dimensions differ.
  static std::unique_ptr<LatentDataset> open(const std::vector<std::filesystem::path>& files);
  virtual ~LatentDataset() = default;

  [[nodiscard]] virtual int64_t num_samples() const noexcept = 0;
  [[nodiscard]] virtual const std::vector<ShapeClass>& classes()
      const noexcept = 0;  // By first index.
  // Text dimensions, equal in all files; nullopt unless every file has /text/prompt_embeds.
  [[nodiscard]] virtual std::optional<StoredText> text() const noexcept = 0;
  // For a model that takes text: InputError naming the first file without it. Call at set-up.
  virtual void require_text() const = 0;
  // For a model that takes class labels: InputError naming the first file without them, or the
  // first of up to 2^24 labels of a bucket that is not below `num_classes` (0: any will do). Call
  // at set-up.
  virtual void require_labels(int64_t num_classes) const = 0;
  [[nodiscard]] virtual bool has_add_time_ids() const noexcept = 0;
  [[nodiscard]] virtual bool has_labels() const noexcept = 0;
  [[nodiscard]] virtual int64_t max_captions() const noexcept = 0;  // K

  // x_0 of `sample` as the model sees it: posterior drawn by `posterior_normals` (used where the
  // file holds moments; empty span where it does not), shifted and scaled. Throws InputError for a
  // failed checksum or a value that is not finite, naming file, bucket and row.
  virtual void read_latent(int64_t sample, std::span<const float> posterior_normals,
                           std::span<float> out) const = 0;
  [[nodiscard]] virtual bool is_moments(int64_t sample) const = 0;
  // Global text rows of the sample's real captions (file's rows offset by the files before it);
  // row 0 of the sample's own file where it has none.
  [[nodiscard]] virtual std::vector<int64_t> caption_rows(int64_t sample) const = 0;
  [[nodiscard]] virtual int64_t empty_prompt_row(int64_t sample) const = 0;
  virtual void read_prompt_embeds(int64_t text_row, std::span<float> out) const = 0;  // (L, D)
  virtual void read_pooled_prompt_embeds(int64_t text_row, std::span<float> out) const = 0;  // (P)
  [[nodiscard]] virtual std::string caption(int64_t text_row) const = 0;  // Empty where not stored.
  // Text and add_time_ids are checked to be finite, as latents are.
  virtual void read_add_time_ids(int64_t sample, std::span<float> out) const = 0;  // (6)
  [[nodiscard]] virtual int64_t label(int64_t sample) const = 0;                   // As stored.
  [[nodiscard]] virtual std::string id(int64_t sample) const = 0;  // Empty where not stored.
  // "FILE, bucket /b, row r", for messages.
  [[nodiscard]] virtual std::string describe(int64_t sample) const = 0;
  [[nodiscard]] virtual std::vector<LatentFileSummary> summaries() const = 0;  // One a file.
};
}  // namespace trireme
