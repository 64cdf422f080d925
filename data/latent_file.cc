#include "data/latent_file.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/half.h"
#include "data/hdf5_attributes.h"
#include "data/latent_math.h"
#include "data/xxh3.h"

namespace trireme {
namespace {
using hdf5::check_h5;
using hdf5::ElementKind;
using hdf5::Signedness;
using hdf5::StoredArray;

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxLinks = int64_t{1} << 20;
constexpr int64_t kMaxSampleElements = int64_t{1} << 28;
constexpr int64_t kMaxTextElements = int64_t{1} << 28;
constexpr int64_t kMaxCaptionsPerSample = int64_t{1} << 16;
constexpr int64_t kMaxScannedCaptions = int64_t{1} << 26;
constexpr int64_t kMaxScannedLabels = int64_t{1} << 24;
constexpr int64_t kMaxHeldChecksums = int64_t{1} << 20;  // 8 MiB.
constexpr std::string_view kSee = " See docs/dataset_format.md.";

std::string text_of_dims(const StoredArray& array) {
  std::string text = "(";
  for (size_t i = 0; i < array.dims().size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(array.dims()[i]);
  }
  return text + ")";
}

[[noreturn]] void refuse(const StoredArray& array, const std::string& why) {
  throw InputError(array.describe() + " of type " + array.type().name() + " and shape " +
                   text_of_dims(array) + " " + why + "." + std::string(kSee));
}

bool is_float(const StoredArray& array) {
  const ElementKind kind = array.type().kind;
  return kind == ElementKind::kFloat16 || kind == ElementKind::kFloat32 ||
         kind == ElementKind::kFloat64;
}

bool is_integer(const StoredArray& array) { return array.type().kind == ElementKind::kInteger; }

void check_rows(const StoredArray& array, int64_t num_samples) {
  if (array.num_rows() != num_samples) {
    refuse(array, "should have as many rows as latents, " + std::to_string(num_samples));
  }
}

// Calls visit(row, its elements) for the first `num_rows` rows of integers, which are read in
// blocks.
template <typename Visit>
void visit_rows(const StoredArray& array, int64_t num_rows, const Visit& visit) {
  const auto width = static_cast<size_t>(array.row_elements());
  const int64_t rows_at_once = std::max<int64_t>(1, (int64_t{1} << 16) / array.row_elements());
  std::vector<int64_t> block;
  for (int64_t first = 0; first < num_rows; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, num_rows - first);
    block.resize(static_cast<size_t>(count) * width);
    array.read_integers(first, count, block);
    for (int64_t i = 0; i < count; ++i) {
      visit(first + i,
            std::span<const int64_t>(block).subspan(static_cast<size_t>(i) * width, width));
    }
  }
}

struct Link {
  std::string name;
  H5L_type_t type;
};

herr_t collect_link(hid_t, const char* name, const H5L_info_t* info, void* links) {
  static_cast<std::vector<Link>*>(links)->push_back({name, info->type});
  return 0;
}

// The attribute, one finite number, or `otherwise`.
double number_attribute(hid_t file, const char* name, const std::string& where,
                        std::optional<double> otherwise) {
  const auto value = hdf5::read_number_attribute(file, name, where);
  if (!value && otherwise) return *otherwise;
  if (!value || !std::isfinite(*value)) {
    throw InputError(where + (value ? ": root attribute \"" : " lacks the root attribute \"") +
                     name + (value ? "\" is not finite." : "\".") + std::string(kSee));
  }
  return *value;
}
}  // namespace

std::unique_ptr<LatentFile> LatentFile::open(const std::filesystem::path& path) {
  const hdf5::Scope scope;
  std::unique_ptr<LatentFile> file(new LatentFile(File::open_for_reading(path, "dataset file")));
  file->open_file();
  file->read_attributes();
  file->collect_datasets(file->file_.get(), "", 0);
  file->open_text();
  // A set is in byte order; the order of buckets is that of their groups' paths, not of the
  // latents'.
  std::vector<std::string> groups;
  for (const std::string& name : file->dataset_paths_) {
    if (name == "/latents")
      groups.emplace_back("/");
    else if (name.ends_with("/latents"))
      groups.push_back(name.substr(0, name.size() - 8));
  }
  std::ranges::sort(groups);
  for (const std::string& group : groups) file->open_bucket(group);
  file->dataset_paths_.clear();
  if (file->buckets_.empty()) {
    throw InputError("\"" + path.string() + "\" holds no dataset named \"latents\"." +
                     std::string(kSee));
  }
  return file;
}

LatentFile::~LatentFile() {
  const hdf5::Scope scope;
  buckets_.clear();
  captions_.reset();
  prompt_embeds_.reset();
  pooled_.reset();
  file_.reset();
}

void LatentFile::open_file() {
  const hdf5::PropertiesHandle access(
      check_h5(H5Pcreate(H5P_FILE_ACCESS), "prepare to open a file"));
#if H5_VERSION_GE(1, 10, 7)
  // Many ranks read at once, also where the file system knows no locks.
  H5Pset_file_locking(access.get(), false, true);
#endif
  const hid_t id = H5Fopen(path().c_str(), H5F_ACC_RDONLY, access.get());
  if (id < 0) {
    const std::string why = hdf5::last_error();
    throw InputError(
        "the dataset file \"" + path().string() + "\" cannot be opened as HDF5: " + why + ". " +
        hdf5::remedy_of(why,
                        "Check that this is a latent file, whole, made by `trireme pack` or h5py") +
        ".");
  }
  file_ = hdf5::FileHandle(id);
}

void LatentFile::read_attributes() {
  const std::string where = "\"" + path().string() + "\"";
  const auto format = hdf5::read_string_attribute(file_.get(), "format", where);
  if (format != "trireme-latents") {
    throw InputError(where +
                     (format ? " has the root attribute format = \"" + *format + "\""
                             : " lacks the root attribute \"format\"") +
                     "; it should be \"trireme-latents\"." + std::string(kSee));
  }
  const double version = number_attribute(file_.get(), "version", where, std::nullopt);
  if (version != 1.0) {
    throw InputError(where + " is of format version " + std::to_string(version) +
                     ", and this program reads version 1. Use a newer program.");
  }
  scaling_factor_ = number_attribute(file_.get(), "scaling_factor", where, std::nullopt);
  shift_factor_ = number_attribute(file_.get(), "shift_factor", where, 0.0);
  if (scaling_factor_ == 0.0) {
    throw InputError(where + ": root attribute \"scaling_factor\" is 0; latents would vanish.");
  }
  attributes_ = hdf5::list_attributes(file_.get());
}

void LatentFile::collect_datasets(hid_t group, const std::string& path, int depth) {
  const std::string where =
      "\"" + this->path().string() + "\", group " + (path.empty() ? "/" : path);
  if (depth > kMaxDepth) throw InputError(where + " is nested too deeply." + std::string(kSee));
  std::vector<Link> links;
  check_h5(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_link, &links),
           "list " + where);
  num_links_ += static_cast<int64_t>(links.size());
  if (num_links_ > kMaxLinks) {
    throw InputError(where + ": the file has more than 2^20 links, or groups that contain " +
                     "themselves." + std::string(kSee));
  }
  for (const Link& link : links) {
    const std::string name = path + "/" + link.name;
    if (link.type != H5L_TYPE_HARD) {
      throw InputError(where + ": \"" + link.name + "\" is " +
                       (link.type == H5L_TYPE_SOFT ? "a soft" : "an external") +
                       " link, which is refused; copy the data in." + std::string(kSee));
    }
    const hdf5::ObjectHandle object(
        check_h5(H5Oopen(group, link.name.c_str(), H5P_DEFAULT), "open " + name + " in " + where));
    const H5I_type_t type = H5Iget_type(object.get());
    if (type == H5I_DATASET) dataset_paths_.insert(name);
    if (type == H5I_GROUP) collect_datasets(object.get(), name, depth + 1);
  }
}

std::optional<StoredArray> LatentFile::open_if_present(const std::string& path) const {
  if (!dataset_paths_.contains(path)) return std::nullopt;
  return StoredArray::open(file_.get(), raw_, path);
}

int64_t LatentFile::num_text_rows() const noexcept {
  if (prompt_embeds_) return prompt_embeds_->num_rows();
  return captions_ ? captions_->num_rows() : 0;
}

void LatentFile::open_text() {
  prompt_embeds_ = open_if_present("/text/prompt_embeds");
  captions_ = open_if_present("/text/captions");
  pooled_ = open_if_present("/text/pooled_prompt_embeds");
  const int64_t num_rows = num_text_rows();
  for (const auto* array : {&prompt_embeds_, &captions_, &pooled_}) {
    if (*array && (*array)->num_rows() != num_rows) {
      refuse(**array,
             "should have " + std::to_string(num_rows) + " rows, one for each distinct caption");
    }
    if (*array && num_rows == 0) refuse(**array, "should have at least the empty prompt, row 0");
  }
  if (captions_ &&
      (captions_->type().kind != ElementKind::kString || captions_->dims().size() != 1)) {
    refuse(*captions_, "should hold strings of shape (U)");
  }
  const auto check_embeds = [](const std::optional<StoredArray>& array, size_t rank,
                               const char* dims) {
    if (!array) return;
    if (!is_float(*array) || array->dims().size() != rank || array->row_elements() < 1) {
      refuse(*array, std::string("should hold floats of shape ") + dims);
    }
    if (array->row_elements() > kMaxTextElements) refuse(*array, "has rows too large to be true");
  };
  check_embeds(prompt_embeds_, 3, "(U, L, D)");
  check_embeds(pooled_, 2, "(U, P)");
}

void LatentFile::open_bucket(const std::string& group_path) {
  const std::string prefix = group_path == "/" ? "/" : group_path + "/";
  LatentBucket bucket{.path = group_path,
                      .latents = StoredArray::open(file_.get(), raw_, prefix + "latents")};
  const StoredArray& latents = bucket.latents;
  const auto& dims = latents.dims();
  const ElementKind kind = latents.type().kind;
  if (dims.size() != 4 || (kind != ElementKind::kFloat16 && kind != ElementKind::kFloat32)) {
    refuse(latents, "should hold float16 or float32 of shape (N, C, H, W)");
  }
  if (latents.row_elements() < 1) refuse(latents, "has samples without elements");
  if (latents.row_elements() > kMaxSampleElements) {
    refuse(latents, "has samples too large to be true");
  }
  bucket.num_samples = dims[0];
  bucket.shape = {.channels = dims[1], .height = dims[2], .width = dims[3]};
  if (const auto name = latents.string_attribute("kind"); name == "moments") {
    bucket.kind = LatentBucket::Kind::kMoments;
    if (dims[1] % 2 != 0) {
      refuse(latents, "has kind = \"moments\" and should have 2C channels, an even number");
    }
    bucket.shape.channels = dims[1] / 2;
  } else if (name && *name != "sample") {
    refuse(latents,
           "has the attribute kind = \"" + *name + "\"; known are \"moments\" and \"sample\"");
  }
  open_companions(bucket, prefix);
  check_captions(bucket);
  buckets_.push_back(std::move(bucket));
}

void LatentFile::open_companions(LatentBucket& bucket, const std::string& prefix) const {
  const auto open = [&](const char* name) {
    auto array = open_if_present(prefix + name);
    if (array) check_rows(*array, bucket.num_samples);
    return array;
  };
  bucket.caption_index = open("caption_index");
  if (const auto& array = bucket.caption_index) {
    if (!is_integer(*array) || array->dims().size() > 2) {
      refuse(*array, "should hold integers of shape (N) or (N, K)");
    }
    bucket.num_captions = array->row_elements();
    if (bucket.num_captions > kMaxCaptionsPerSample) {
      refuse(*array, "has more than 65,536 captions a sample");
    }
  }
  bucket.labels = open("labels");
  if (const auto& array = bucket.labels;
      array && (!is_integer(*array) || array->dims().size() != 1)) {
    refuse(*array, "should hold integers of shape (N)");
  }
  bucket.ids = open("ids");
  if (const auto& array = bucket.ids;
      array && (array->type().kind != ElementKind::kString || array->dims().size() != 1)) {
    refuse(*array, "should hold strings of shape (N)");
  }
  bucket.add_time_ids = open("add_time_ids");
  if (const auto& array = bucket.add_time_ids;
      array && ((!is_float(*array) && !is_integer(*array)) || array->dims().size() != 2 ||
                array->row_elements() != 6)) {
    refuse(*array, "should hold floats of shape (N, 6)");
  }
  bucket.xxh3 = open("xxh3");
  if (const auto& array = bucket.xxh3; array && (!is_integer(*array) || array->dims().size() != 1 ||
                                                 array->type().size_bytes != 8)) {
    refuse(*array, "should hold uint64 of shape (N)");
  }
  if (bucket.xxh3 && bucket.num_samples <= kMaxHeldChecksums) {
    bucket.checksums.resize(static_cast<size_t>(bucket.num_samples));
    bucket.xxh3->read_integers(0, bucket.num_samples, bucket.checksums);
  }
}

void LatentFile::check_captions(const LatentBucket& bucket) const {
  const int64_t num_captions = bucket.num_captions;
  if (num_captions == 0 || bucket.num_samples > kMaxScannedCaptions / num_captions) return;
  visit_rows(*bucket.caption_index, bucket.num_samples,
             [&](int64_t row, std::span<const int64_t> indices) {
               check_caption_row(bucket, row, indices);
             });
}

void LatentFile::check_labels(const LatentBucket& bucket, int64_t num_classes) const {
  visit_rows(*bucket.labels, std::min(bucket.num_samples, kMaxScannedLabels),
             [&](int64_t row, std::span<const int64_t> label) {
               if (label[0] >= 0 && label[0] < num_classes) return;
               throw InputError(bucket.labels->describe() + ", row " + std::to_string(row) +
                                ": label " + std::to_string(label[0]) + " is outside the model's " +
                                std::to_string(num_classes) +
                                " classes (num_class_embeds). Number classes from 0.");
             });
}

void LatentFile::check_caption_row(const LatentBucket& bucket, int64_t row,
                                   std::span<const int64_t> indices) const {
  const int64_t num_rows = num_text_rows();
  const bool knows_padding = bucket.caption_index->type().signedness == Signedness::kSigned;
  bool ended = false;
  for (const int64_t index : indices) {
    const std::string where =
        bucket.caption_index->describe() + ", row " + std::to_string(row) + ": ";
    if (index == -1 && knows_padding) {
      ended = true;
    } else if (ended) {
      throw InputError(where + "a caption follows -1, which is padding and comes last." +
                       std::string(kSee));
    } else if (index < 0 || (num_rows > 0 && index >= num_rows)) {
      throw InputError(where + "caption " + std::to_string(index) + " is outside the " +
                       std::to_string(num_rows) + " rows under /text." + std::string(kSee));
    }
  }
}

std::vector<int64_t> LatentFile::caption_rows(const LatentBucket& bucket, int64_t row) const {
  if (bucket.num_captions == 0) return {};
  std::vector<int64_t> indices(static_cast<size_t>(bucket.num_captions));
  bucket.caption_index->read_integers(row, 1, indices);
  check_caption_row(bucket, row, indices);
  std::erase(indices, -1);
  return indices;
}

std::string LatentFile::describe(const LatentBucket& bucket, int64_t row) const {
  return "\"" + path().string() + "\", bucket " + bucket.path + ", row " + std::to_string(row);
}

void LatentFile::check_checksum(const LatentBucket& bucket, int64_t row,
                                std::span<const std::byte> bytes) const {
  if (!bucket.xxh3) return;
  int64_t stored = 0;
  if (bucket.checksums.empty()) {
    bucket.xxh3->read_integers(row, 1, std::span(&stored, 1));
  } else {
    stored = bucket.checksums[static_cast<size_t>(row)];
  }
  if (static_cast<uint64_t>(stored) != XXH3_64bits(bytes.data(), bytes.size())) {
    throw InputError(describe(bucket, row) + ": the latents do not match their checksum (xxh3); " +
                     "the file is damaged. Copy or make it again.");
  }
}

void LatentFile::read_latent(const LatentBucket& bucket, int64_t row,
                             std::span<const float> posterior_normals, std::span<float> out) const {
  const auto num_elements = static_cast<size_t>(bucket.shape.num_elements());
  const bool is_moments = bucket.kind == LatentBucket::Kind::kMoments;
  check(out.size() == num_elements, "latent buffer of another size");
  check(!is_moments || posterior_normals.size() == num_elements, "posterior without normals");
  const size_t row_bytes = bucket.latents.row_size_bytes();
  const auto memory = std::make_unique_for_overwrite<std::byte[]>(row_bytes);
  const std::span<std::byte> bytes(memory.get(), row_bytes);
  bucket.latents.read_bytes(row, 1, bytes);
  check_checksum(bucket, row, bytes);
  std::vector<float> moments(is_moments ? 2 * num_elements : 0);
  const std::span<float> stored = is_moments ? std::span<float>(moments) : out;
  bucket.latents.to_floats(bytes, stored);
  if (is_moments) {
    check_finite(bucket, row, stored);
    sample_posterior(stored.first(num_elements), stored.subspan(num_elements), posterior_normals,
                     out);
  }
  if (shift_and_scale(out, static_cast<float>(shift_factor_), static_cast<float>(scaling_factor_)))
    return;
  if (!is_moments) {  // Was it so in the file?
    bucket.latents.read_floats(row, 1, out);
    check_finite(bucket, row, out);
  }
  throw InputError(describe(bucket, row) + ": the latents overflow float32 once scaled by " +
                   "scaling_factor. Check the values and the factor.");
}

void LatentFile::check_finite(const LatentBucket& bucket, int64_t row,
                              std::span<const float> stored) const {
  if (all_finite(stored)) return;
  throw InputError(describe(bucket, row) +
                   ": the latents hold a value that is not finite (NaN or infinite). Make the " +
                   "sample again or leave it out.");
}
}  // namespace trireme
