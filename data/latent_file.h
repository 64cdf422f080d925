#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/latent_batch.h"
#include "data/stored_array.h"

namespace trireme {

// A group of a file that holds `latents`. Samples are its rows.
struct LatentBucket {
  enum class Kind { kSample, kMoments };
  std::string path;  // "/" or "/a/b"
  LatentShape shape = {};
  Kind kind = Kind::kSample;
  int64_t num_samples = 0;
  int64_t num_captions = 0;  // K of caption_index; 0: none.
  hdf5::StoredArray latents;
  std::optional<hdf5::StoredArray> caption_index = std::nullopt;
  std::optional<hdf5::StoredArray> labels = std::nullopt;
  std::optional<hdf5::StoredArray> ids = std::nullopt;
  std::optional<hdf5::StoredArray> add_time_ids = std::nullopt;
  std::optional<hdf5::StoredArray> xxh3 = std::nullopt;
  // The rows of xxh3, of up to 2^20 samples; beyond, read as needed.
  std::vector<int64_t> checksums = {};
};

// One latent file (docs/dataset_format.md), opened and validated: attributes, links, types, shapes,
// extents, and (up to 2^26 entries a bucket; beyond, at use) every caption index. Const methods are
// thread-safe.
class LatentFile {
 public:
  // Throws InputError naming file and dataset.
  static std::unique_ptr<LatentFile> open(const std::filesystem::path& path);
  ~LatentFile();
  LatentFile(const LatentFile&) = delete;
  LatentFile& operator=(const LatentFile&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return raw_.path(); }
  [[nodiscard]] const std::vector<LatentBucket>& buckets() const noexcept { return buckets_; }
  [[nodiscard]] double scaling_factor() const noexcept { return scaling_factor_; }
  [[nodiscard]] double shift_factor() const noexcept { return shift_factor_; }
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& attributes()
      const noexcept {
    return attributes_;
  }
  [[nodiscard]] const std::optional<hdf5::StoredArray>& prompt_embeds() const noexcept {
    return prompt_embeds_;
  }
  [[nodiscard]] const std::optional<hdf5::StoredArray>& pooled() const noexcept { return pooled_; }
  [[nodiscard]] const std::optional<hdf5::StoredArray>& captions() const noexcept {
    return captions_;
  }
  // Rows under /text, U; 0 where the file has none.
  [[nodiscard]] int64_t num_text_rows() const noexcept;

  // As LatentDataset::read_latent.
  void read_latent(const LatentBucket& bucket, int64_t row,
                   std::span<const float> posterior_normals, std::span<float> out) const;
  // The sample's real captions, possibly none.
  [[nodiscard]] std::vector<int64_t> caption_rows(const LatentBucket& bucket, int64_t row) const;
  // "FILE, bucket /b, row r"
  [[nodiscard]] std::string describe(const LatentBucket& bucket, int64_t row) const;
  // Throws InputError for the first of up to 2^24 labels that is not in [0, num_classes). REQUIRES:
  // the bucket has labels.
  void check_labels(const LatentBucket& bucket, int64_t num_classes) const;

 private:
  explicit LatentFile(File raw) : raw_(std::move(raw)) {}
  void open_file();
  void read_attributes();
  void collect_datasets(hid_t group, const std::string& path, int depth);
  [[nodiscard]] std::optional<hdf5::StoredArray> open_if_present(const std::string& path) const;
  void open_text();
  void open_bucket(const std::string& group_path);
  void open_companions(LatentBucket& bucket, const std::string& prefix) const;
  void check_captions(const LatentBucket& bucket) const;
  // Throws unless `indices` (K of row `row`) are real rows, then -1.
  void check_caption_row(const LatentBucket& bucket, int64_t row,
                         std::span<const int64_t> indices) const;
  void check_checksum(const LatentBucket& bucket, int64_t row,
                      std::span<const std::byte> bytes) const;
  void check_finite(const LatentBucket& bucket, int64_t row, std::span<const float> stored) const;

  File raw_;
  hdf5::FileHandle file_;
  double scaling_factor_ = 1.0;
  double shift_factor_ = 0.0;
  std::vector<std::pair<std::string, std::string>> attributes_;
  std::set<std::string> dataset_paths_;  // Empty after opening.
  int64_t num_links_ = 0;
  std::vector<LatentBucket> buckets_;
  std::optional<hdf5::StoredArray> captions_;
  std::optional<hdf5::StoredArray> prompt_embeds_;
  std::optional<hdf5::StoredArray> pooled_;
};
}  // namespace trireme
