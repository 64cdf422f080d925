#include "trainer/evaluate/reference_features.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "core/sha256.h"
#include "data/image.h"
#include "data/latent_math.h"
#include "trainer/evaluate/collect.h"
#include "trainer/evaluate/memorisation.h"
#include "trainer/in_touch.h"
#include "trainer/models/safetensors.h"
#include "trainer/progress.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

constexpr size_t kBroadcastBytes = size_t{1} << 28;  // At a time.

// The samples of one shape that scores.reference stands for.
struct DataSamples {
  const LatentDataset* data = nullptr;
  std::string name;
  std::vector<int64_t> samples;
};

DataSamples samples_of(const Session& session, const LatentShape& shape) {
  const auto& choice = session.config.scores.reference;
  const bool has_validation = session.num_validation() > 0;
  const bool validates = choice == "validation" || (choice == "auto" && has_validation);
  if (validates && !has_validation) {
    throw UsageError(
        "scores.reference = \"validation\", but there is no validation data. Set data.validation "
        "or "
        "data.validation_fraction, or choose \"train\" or a folder of pictures.");
  }
  const bool own_files = validates && session.validation_files != nullptr;
  DataSamples result;
  result.data = own_files ? session.validation_files.get() : session.dataset.get();
  result.name = validates ? "validation pictures" : "training pictures";
  const auto& classes = result.data->classes();
  const Split everything(classes);
  for (size_t c = 0; c < classes.size(); ++c) {
    if (classes[c].shape != shape) continue;
    const int64_t count = own_files   ? classes[c].num_samples
                          : validates ? session.split->num_validation(c)
                                      : session.split->num_training(c);
    for (int64_t k = 0; k < count; ++k) {
      result.samples.push_back(own_files   ? everything.training_sample(c, k)
                               : validates ? session.split->validation_sample(c, k)
                                           : session.split->training_sample(c, k));
    }
  }
  return result;
}

PictureSet data_pictures(const Session& session, const LatentShape& whole, FeatureRows& features) {
  DataSamples found = samples_of(session, whole);
  PictureSet set{.name = found.name,
                 .count = static_cast<int64_t>(found.samples.size()),
                 .digest = {},
                 .rows = {}};
  const int64_t crop = session.config.data.crop;
  const auto latent = [=, data = found.data, samples = std::move(found.samples)](int64_t item) {
    return mean_latent(*data, samples[static_cast<size_t>(item)], whole, crop).contiguous();
  };
  set.digest = [=](int64_t item) {
    const at::Tensor values = latent(item);
    Sha256 sha;
    sha.update(std::as_bytes(
        std::span(values.const_data_ptr<float>(), static_cast<size_t>(values.numel()))));
    return sha.hex_digest();
  };
  set.rows = [=, &features](int64_t first, int64_t n) {
    std::vector<at::Tensor> latents;
    for (int64_t i = first; i < first + n; ++i) latents.push_back(latent(i));
    return features.of_latents(at::stack(latents));
  };
  return set;
}

at::Tensor pixels_of(const Image& image) {  // (1, 3, H, W) uint8
  return torch::tensor(at::ArrayRef<uint8_t>(image.pixels), torch::kUInt8)
      .view({1, image.height, image.width, 3})
      .permute({0, 3, 1, 2})
      .contiguous();
}

// A hash of what the pictures and the networks are.
std::string content_key(MpiEnvironment& mpi, const PictureSet& pictures,
                        const FeatureRows& features, int64_t batch) {
  at::Tensor words = at::zeros({pictures.count, 2}, at::kDouble);
  run_in_touch(mpi, [&](WorkReport& report) {
    for_own_groups(mpi, pictures.count, 1, [&](int64_t item, int64_t) {
      const std::string digest = pictures.digest(item);
      for (int64_t half = 0; half < 2; ++half) {
        words[item][half] = static_cast<double>(
            std::stoul(digest.substr(static_cast<size_t>(8 * half), 8), nullptr, 16));
      }
      report.advance(0);
    });
  });
  all_reduce_in_pieces(mpi, words);
  Sha256 sha;
  const std::string networks = features.description() + "; batch " + std::to_string(batch);
  sha.update(std::as_bytes(std::span(networks)));
  sha.update(
      std::as_bytes(std::span(words.const_data_ptr<double>(), static_cast<size_t>(words.numel()))));
  return sha.hex_digest().substr(0, 32);
}

// nullopt where the file is not there, or not whole.
std::optional<at::Tensor> read_rows(const fs::path& file, int64_t count, int64_t width) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  try {
    at::Tensor rows = SafetensorsReader(file).read("features");
    if (rows.dim() == 2 && rows.size(0) == count && rows.size(1) == width &&
        rows.scalar_type() == at::kFloat) {
      return rows;
    }
  } catch (const InputError& error) {
    log::warn(std::string(error.what()) + " The features are computed anew.");
  }
  return std::nullopt;
}

void write_rows(const fs::path& file, const at::Tensor& rows) {
  try {
    fs::create_directories(file.parent_path());
    const fs::path beside = fs::path(file).concat(".tmp");
    write_safetensors(beside, {{"features", rows}});
    fs::rename(beside, file);
  } catch (const std::exception& error) {
    log::warn("the reference features could not be kept in " + file.string() + " (" + error.what() +
              "). They are computed anew another time; scores.cache names another folder.");
  }
}

// Rank 0's rows on every rank.
void broadcast_rows(MpiEnvironment& mpi, at::Tensor& rows) {
  const std::span<float> values(rows.data_ptr<float>(), static_cast<size_t>(rows.numel()));
  const auto bytes = std::as_writable_bytes(values);
  for (size_t first = 0; first < bytes.size(); first += kBroadcastBytes) {
    mpi.broadcast_bytes(bytes.subspan(first, std::min(kBroadcastBytes, bytes.size() - first)));
  }
}
}  // namespace

PictureSet folder_pictures(const fs::path& folder, int64_t resolution, FeatureRows& features) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::string kind = entry.path().extension().string();
    std::ranges::transform(kind, kind.begin(), [](char c) { return c | 0x20; });
    if (kind == ".png" || kind == ".jpg" || kind == ".jpeg") files.push_back(entry.path());
  }
  if (error || files.size() < 2) {
    throw InputError(folder.string() +
                     " is no folder of at least two pictures (.png, .jpg). Give another.");
  }
  std::ranges::sort(files);
  const auto count = static_cast<int64_t>(files.size());
  const auto picture = [=](int64_t item) {
    const Image image = read_image(files[static_cast<size_t>(item)]);
    return resolution > 0 ? resize_and_centre_crop(image, resolution) : image;
  };
  return {.name = "pictures of " + folder.string(),
          .count = count,
          .digest = [=](int64_t item) { return sha256_of_file(files[static_cast<size_t>(item)]); },
          .rows =
              [=, &features](int64_t first, int64_t n) {
                std::vector<at::Tensor> rows;  // One by one: sizes may differ.
                for (int64_t i = first; i < first + n; ++i) {
                  rows.push_back(features.of_pixels(pixels_of(picture(i))));
                }
                return at::cat(rows);
              }};
}

PictureSet reference_pictures(const Session& session, FeatureRows& features) {
  const LatentShape& whole = session.validation_dataset().classes().front().shape;
  const LatentShape shape = cropped_shape(whole, session.config.data.crop);
  const auto& choice = session.config.scores.reference;
  if (choice != "auto" && choice != "validation" && choice != "train") {
    if (shape.height != shape.width) {
      throw UsageError("scores.reference = '" + choice +
                       "': a folder of pictures serves square samples only. Use \"validation\" or "
                       "\"train\".");
    }
    return folder_pictures(choice, shape.height * features.pixels_per_latent(), features);
  }
  PictureSet set = data_pictures(session, whole, features);
  if (set.count < 2) {
    throw UsageError("scores need at least two " + set.name + " to compare with, but there are " +
                     std::to_string(set.count) + ". Set scores.reference.");
  }
  return set;
}

at::Tensor feature_rows_of(MpiEnvironment& mpi, const PictureSet& pictures,
                           const FeatureRows& features, int64_t batch, const fs::path& cache) {
  const int64_t width = features.reference_width();
  at::Tensor rows = at::zeros({pictures.count, width});
  fs::path file;
  std::array<int64_t, 1> is_kept = {0};
  if (!cache.empty()) {
    file = cache / ("features-" + content_key(mpi, pictures, features, batch) + ".safetensors");
    mpi.run_on_all_ranks([&] {
      if (mpi.rank() != 0) return;
      if (const auto kept = read_rows(file, pictures.count, width)) {
        rows = *kept;
        is_kept[0] = 1;
      }
    });
  }
  mpi.all_reduce_max(is_kept);
  if (is_kept[0] != 0) {
    broadcast_rows(mpi, rows);
    return rows;
  }
  Progress progress(pictures.name, pictures.count,
                    mpi.rank() == 0 ? Progress::Voice::kLogs : Progress::Voice::kSilent);
  run_in_touch(
      mpi,
      [&](WorkReport& report) {
        const at::NoGradGuard no_grad;
        for_own_groups(mpi, pictures.count, batch, [&](int64_t first, int64_t n) {
          rows.narrow(0, first, n).copy_(pictures.rows(first, n));
          report.advance(n);
        });
      },
      [&](int64_t done) { progress.report(done); });
  collect_rows(mpi, rows);
  if (mpi.rank() == 0 && !file.empty()) write_rows(file, rows);
  return rows;
}
}  // namespace trireme
