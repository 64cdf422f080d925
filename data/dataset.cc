#include "data/dataset.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/half.h"
#include "data/latent_file.h"
#include "data/xxh3.h"

namespace trireme {
namespace {
using hdf5::StoredArray;

constexpr int64_t kMaxSamples = int64_t{1} << 40;  // PositionRandom's range.

StoredText text_of(const LatentFile& file) {
  StoredText text;
  if (!file.prompt_embeds()) return text;
  const auto& dims = file.prompt_embeds()->dims();
  text = {.num_captions = dims[0], .length = dims[1], .width = dims[2]};
  if (file.pooled()) text.pooled_width = file.pooled()->row_elements();
  return text;
}

std::string describe_text(const StoredText& text) {
  return "(L, D) = (" + std::to_string(text.length) + ", " + std::to_string(text.width) +
         "), pooled width " + std::to_string(text.pooled_width);
}

class FileSetDataset : public LatentDataset {
 public:
  explicit FileSetDataset(const std::vector<std::filesystem::path>& paths) {
    if (paths.empty()) throw UsageError("no dataset files are given; name them under [data].");
    for (const auto& path : paths) add_file(path);
    if (num_samples_ == 0) {
      throw InputError("\"" + paths.front().string() + "\"" +
                       (paths.size() > 1 ? " and the other files hold" : " holds") +
                       " no samples; every \"latents\" has 0 rows.");
    }
    unite_text();
  }

  int64_t num_samples() const noexcept override { return num_samples_; }
  const std::vector<ShapeClass>& classes() const noexcept override { return classes_; }
  std::optional<StoredText> text() const noexcept override { return text_; }
  bool has_add_time_ids() const noexcept override { return has_add_time_ids_; }
  bool has_labels() const noexcept override { return has_labels_; }
  int64_t max_captions() const noexcept override { return max_captions_; }

  void require_text() const override {
    for (const auto& file : files_) {
      if (file->prompt_embeds()) continue;
      throw InputError("\"" + file->path().string() +
                       "\" has no /text/prompt_embeds, and the model " +
                       "has cross-attention, which needs text. Pack the data with a text encoder " +
                       "or train a model without cross-attention.");
    }
  }

  void require_labels(int64_t num_classes) const override {
    for (const Span& span : spans_) {
      if (span.bucket->labels) {
        if (num_classes > 0) span.file->check_labels(*span.bucket, num_classes);
        continue;
      }
      throw InputError(span.file->describe(*span.bucket, 0) +
                       ": the model takes class labels, but there are no `labels`. Add an int64 "
                       "dataset `labels` beside `latents`.");
    }
  }

  void read_latent(int64_t sample, std::span<const float> posterior_normals,
                   std::span<float> out) const override {
    const Place place = locate(sample);
    place.file->read_latent(*place.bucket, place.row, posterior_normals, out);
  }

  bool is_moments(int64_t sample) const override {
    return locate(sample).bucket->kind == LatentBucket::Kind::kMoments;
  }

  std::vector<int64_t> caption_rows(int64_t sample) const override {
    const Place place = locate(sample);
    std::vector<int64_t> rows = place.file->caption_rows(*place.bucket, place.row);
    if (rows.empty()) rows.push_back(0);
    for (int64_t& row : rows) row += place.first_text_row;
    return rows;
  }

  int64_t empty_prompt_row(int64_t sample) const override { return locate(sample).first_text_row; }

  void read_prompt_embeds(int64_t text_row, std::span<float> out) const override {
    const TextPlace place = locate_text(text_row);
    check(place.file->prompt_embeds().has_value(), "a file without prompt_embeds");
    read_finite(*place.file->prompt_embeds(), place.row, out);
  }

  void read_pooled_prompt_embeds(int64_t text_row, std::span<float> out) const override {
    const TextPlace place = locate_text(text_row);
    check(place.file->pooled().has_value(), "a file without pooled_prompt_embeds");
    read_finite(*place.file->pooled(), place.row, out);
  }

  std::string caption(int64_t text_row) const override {
    const TextPlace place = locate_text(text_row);
    return place.file->captions() ? place.file->captions()->read_string(place.row) : "";
  }

  void read_add_time_ids(int64_t sample, std::span<float> out) const override {
    const Place place = locate(sample);
    check(place.bucket->add_time_ids.has_value(), "a bucket without add_time_ids");
    read_finite(*place.bucket->add_time_ids, place.row, out);
  }

  int64_t label(int64_t sample) const override {
    const Place place = locate(sample);
    check(place.bucket->labels.has_value(), "a bucket without labels");
    int64_t value = 0;
    place.bucket->labels->read_integers(place.row, 1, std::span(&value, 1));
    return value;
  }

  std::string id(int64_t sample) const override {
    const Place place = locate(sample);
    return place.bucket->ids ? place.bucket->ids->read_string(place.row) : "";
  }

  std::string describe(int64_t sample) const override {
    const Place place = locate(sample);
    return place.file->describe(*place.bucket, place.row);
  }

  std::vector<LatentFileSummary> summaries() const override {
    std::vector<LatentFileSummary> result;
    for (const auto& file : files_) result.push_back(summarise(*file));
    return result;
  }

 private:
  // A bucket's samples are [first, first + its num_samples).
  struct Span {
    int64_t first;
    const LatentFile* file;
    const LatentBucket* bucket;
    int64_t first_text_row;
  };
  struct Place {
    const LatentFile* file;
    const LatentBucket* bucket;
    int64_t row;
    int64_t first_text_row;
  };
  struct TextPlace {
    const LatentFile* file;
    int64_t row;
  };

  void add_file(const std::filesystem::path& path) {
    files_.push_back(LatentFile::open(path));
    const LatentFile& file = *files_.back();
    for (const LatentBucket& bucket : file.buckets()) {
      if (bucket.num_samples == 0) continue;
      spans_.push_back({num_samples_, &file, &bucket, num_text_rows_});
      add_to_class(bucket);
      num_samples_ += bucket.num_samples;
      if (num_samples_ > kMaxSamples) {
        throw InputError("\"" + path.string() + "\" brings the data to more than 2^40 samples.");
      }
      has_add_time_ids_ = has_add_time_ids_ && bucket.add_time_ids.has_value();
      has_labels_ = has_labels_ && bucket.labels.has_value();
      max_captions_ = std::max(max_captions_, bucket.num_captions);
    }
    first_text_rows_.push_back(num_text_rows_);
    num_text_rows_ += file.num_text_rows();
  }

  void add_to_class(const LatentBucket& bucket) {
    const auto [found, is_new] = class_of_shape_.try_emplace(bucket.shape, classes_.size());
    if (is_new) classes_.push_back({.shape = bucket.shape, .ranges = {}, .num_samples = 0});
    ShapeClass& shape_class = classes_[found->second];
    auto& ranges = shape_class.ranges;
    if (!ranges.empty() && ranges.back().first + ranges.back().count == num_samples_) {
      ranges.back().count += bucket.num_samples;
    } else {
      ranges.push_back({num_samples_, bucket.num_samples});
    }
    shape_class.num_samples += bucket.num_samples;
  }

  void unite_text() {
    const LatentFile* first = nullptr;
    for (const auto& file : files_) {
      if (!file->prompt_embeds()) continue;
      if (first == nullptr) first = file.get();
      const StoredText ours = text_of(*file);
      const StoredText theirs = text_of(*first);
      if (ours.length != theirs.length || ours.width != theirs.width ||
          ours.pooled_width != theirs.pooled_width) {
        throw InputError("\"" + file->path().string() + "\" has text of " + describe_text(ours) +
                         ", \"" + first->path().string() + "\" of " + describe_text(theirs) +
                         ". Pack both with the same text encoder.");
      }
    }
    const bool all_have = std::ranges::all_of(
        files_, [](const auto& file) { return file->prompt_embeds().has_value(); });
    if (!all_have) return;
    text_ = text_of(*first);
    text_->num_captions = num_text_rows_;
  }

  Place locate(int64_t sample) const {
    check(sample >= 0 && sample < num_samples_, "a sample outside the dataset");
    const auto after = std::ranges::upper_bound(spans_, sample, {}, &Span::first);
    const Span& span = *std::prev(after);
    return {span.file, span.bucket, sample - span.first, span.first_text_row};
  }

  TextPlace locate_text(int64_t row) const {
    check(row >= 0 && row < num_text_rows_, "a text row outside the dataset");
    // Files without text have the same first row as the next: the last of them is meant.
    const auto after = std::ranges::upper_bound(first_text_rows_, row);
    const auto index = static_cast<size_t>(std::prev(after) - first_text_rows_.begin());
    return {files_[index].get(), row - first_text_rows_[index]};
  }

  static void read_finite(const StoredArray& array, int64_t row, std::span<float> out) {
    check(out.size() == static_cast<size_t>(array.row_elements()), "row buffer of another size");
    array.read_floats(row, 1, out);
    if (all_finite(out)) return;
    throw InputError(array.describe() + ", row " + std::to_string(row) + " holds a value that is " +
                     "not finite (NaN or infinite). Make the file again.");
  }

  static LatentFileSummary summarise(const LatentFile& file) {
    LatentFileSummary result;
    result.path = file.path();
    result.attributes = file.attributes();
    result.text = text_of(file);
    for (const LatentBucket& bucket : file.buckets()) {
      const bool is_moments = bucket.kind == LatentBucket::Kind::kMoments;
      auto& entry = result.buckets.emplace_back();
      entry.path = bucket.path;
      entry.kind = is_moments ? "moments" : "sample";
      entry.type = bucket.latents.type().name();
      entry.shape = bucket.shape;
      entry.num_samples = bucket.num_samples;
      entry.num_captions = bucket.num_captions;
      if (bucket.labels) entry.companions.emplace_back("labels");
      if (bucket.ids) entry.companions.emplace_back("ids");
      if (bucket.add_time_ids) entry.companions.emplace_back("add_time_ids");
      if (bucket.xxh3) entry.companions.emplace_back("xxh3");
      const auto rows = std::as_bytes(std::span(bucket.checksums));
      if (!rows.empty()) entry.checksum = XXH3_64bits(rows.data(), rows.size());
    }
    return result;
  }

  std::vector<std::unique_ptr<LatentFile>> files_;
  std::vector<int64_t> first_text_rows_;  // One a file.
  std::vector<Span> spans_;               // Ascending.
  std::vector<ShapeClass> classes_;
  std::map<LatentShape, size_t> class_of_shape_;
  int64_t num_samples_ = 0;
  int64_t num_text_rows_ = 0;
  int64_t max_captions_ = 0;
  bool has_add_time_ids_ = true;
  bool has_labels_ = true;
  std::optional<StoredText> text_;
};
}  // namespace

std::unique_ptr<LatentDataset> LatentDataset::open(
    const std::vector<std::filesystem::path>& files) {
  return std::make_unique<FileSetDataset>(files);
}
}  // namespace trireme
