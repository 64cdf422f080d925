#include "trainer/encode.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/philox.h"
#include "data/image.h"
#include "data/latent_rows.h"
#include "trainer/group_work.h"
#include "trainer/models/autoencoder_kl.h"
#include "trainer/models/clip_text.h"
#include "trainer/pack_scan.h"
#include "trainer/progress.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using std::to_string;

constexpr int64_t kCaptionGroup = 16;
constexpr int64_t kPixelsTogether = int64_t{512} * 512;
constexpr int64_t kMaxBatch = 32;
constexpr int64_t kMaxWorkers = 16;
constexpr int64_t kMaxResolution = 8192;
constexpr uint64_t kPosteriorSeed = 0;
constexpr double kMaxHalf = 65504.0;

struct Encoders {
  std::unique_ptr<AutoencoderKL> vae;
  std::unique_ptr<ClipTextModel> text;  // Null: the model has none.
  std::unique_ptr<ClipTokenizer> tokenizer;
};

Encoders load_encoders(const PackOptions& options) {
  Encoders encoders;
  encoders.vae = AutoencoderKL::load(options.model);
  encoders.vae->to_device(options.device);
  const int64_t factor = encoders.vae->downscale_factor();
  if (options.resolution < factor || options.resolution > kMaxResolution ||
      options.resolution % factor != 0) {
    throw UsageError("--resolution " + to_string(options.resolution) +
                     " does not fit the VAE, which makes one latent of " + to_string(factor) + "x" +
                     to_string(factor) + " pixels: give a multiple of " + to_string(factor) +
                     " up to " + to_string(kMaxResolution) + ".");
  }
  std::error_code ignored;
  const bool has_text = fs::exists(options.model / "text_encoder", ignored) ||
                        fs::exists(options.model / "tokenizer", ignored);
  if (!has_text) return encoders;
  encoders.text = ClipTextModel::load(options.model);
  encoders.text->to_device(options.device);
  encoders.tokenizer = ClipTokenizer::load(options.model);
  if (encoders.tokenizer->max_length() > encoders.text->max_position_embeddings()) {
    throw InputError("The tokenizer of " + options.model.string() + " makes texts of " +
                     to_string(encoders.tokenizer->max_length()) +
                     " tokens, but its text encoder takes " +
                     to_string(encoders.text->max_position_embeddings()) +
                     " (max_position_embeddings). Use the tokenizer of the same model.");
  }
  return encoders;
}

// One packing, on one rank.
class Packer {
 public:
  Packer(MpiEnvironment& mpi, const PackOptions& options) : mpi_(mpi), options_(options) {}

  PackSummary run() {
    mpi_.run_on_all_ranks([&] { encoders_ = load_encoders(options_); });
    batch_ = options_.batch > 0
                 ? options_.batch
                 : std::clamp<int64_t>(
                       kPixelsTogether / (options_.resolution * options_.resolution), 1, kMaxBatch);
    num_workers_ =
        std::clamp<int64_t>(at::get_num_threads(), options_.device == "cpu" ? 1 : 4, kMaxWorkers);
    partial_ = options_.out;
    partial_ += ".partial";
    mpi_.run_on_all_ranks([&] {
      if (leads()) (void)File::create(partial_);  // Known to be possible before hours of work.
    });
    int64_t num_listed = 0;
    try {
      list();
      num_listed = num_samples();
      drop_unreadable();
      create_file();
      encode_all_captions();
      encode_all_pictures();
      mpi_.run_on_all_ranks([&] { rows_->sync(); });
      mpi_.run_on_all_ranks([&] { publish(); });
    } catch (...) {
      remove_partial();
      throw;
    }
    return {.num_samples = num_samples(),
            .num_skipped = num_listed - num_samples(),
            .num_captions = static_cast<int64_t>(captions_.size())};
  }

 private:
  bool leads() const { return mpi_.rank() == 0; }
  Progress::Voice voice() const {
    return leads() ? Progress::Voice::kLogs : Progress::Voice::kSilent;
  }
  int64_t num_samples() const { return static_cast<int64_t>(ids_.size()); }
  int64_t side() const { return options_.resolution / encoders_.vae->downscale_factor(); }
  int64_t stored_channels() const {
    return encoders_.vae->latent_channels() * (options_.kind == LatentKind::kMoments ? 2 : 1);
  }
  int64_t text_length() const { return encoders_.text ? encoders_.tokenizer->max_length() : 0; }
  int64_t text_width() const { return encoders_.text ? encoders_.text->hidden_size() : 0; }

  void list();
  void drop_unreadable();
  void create_file();
  LatentFileHeader header() const;
  void encode_all_captions();
  void encode_all_pictures();
  void encode_captions(int64_t group) const;
  void encode_pictures(int64_t group) const;
  void write_latent(int64_t row, const at::Tensor& moments) const;
  void publish() const;
  void remove_partial() const noexcept;

  MpiEnvironment& mpi_;
  const PackOptions& options_;
  Encoders encoders_;
  int64_t batch_ = 1;
  int64_t num_workers_ = 1;
  std::vector<PictureEntry> pictures_;  // Rank 0.
  std::vector<std::string> ids_;
  std::vector<std::string> captions_;  // Distinct.
  CaptionTable table_;                 // Rank 0.
  fs::path partial_;
  LatentFileLayout layout_;
  std::optional<LatentRowWriter> rows_;
};

void Packer::list() {
  mpi_.run_on_all_ranks([&] {
    if (!leads()) return;
    auto listing = list_pictures(options_.images, options_.captions, options_.subfolders);
    pictures_ = std::move(listing.pictures);
    for (const auto& picture : pictures_) ids_.push_back(picture.id);
    if (listing.num_without_caption > 0 && encoders_.text) {
      log::warn(to_string(listing.num_without_caption) + " of " + to_string(pictures_.size()) +
                " pictures have no caption and get the empty prompt");
    }
    if (listing.num_other_files > 0) {
      log::warn(to_string(listing.num_other_files) + " files of " + options_.images.string() +
                " are neither PNG nor JPEG by name and are not packed");
    }
    if (!encoders_.text) {
      log::warn("the model " + options_.model.string() +
                " has neither text_encoder nor tokenizer: the file will have no text");
    }
  });
  broadcast_texts(mpi_, ids_);
}

// All pictures are decoded once before any is encoded, so that an unreadable one is known before
// rows are allotted, and hours of encoding are not lost to it.
void Packer::drop_unreadable() {
  std::vector<std::string> problems =
      find_unreadable(mpi_, num_workers_, options_.images, ids_, options_.resolution);
  std::vector<std::string> caption_problems;
  for (const auto& picture : pictures_) caption_problems.push_back(picture.problem);
  broadcast_texts(mpi_, caption_problems);
  for (size_t i = 0; i < problems.size(); ++i) {
    if (!problems[i].empty() || caption_problems[i].empty()) continue;
    problems[i] = "the picture \"" + (options_.images / ids_[i]).string() +
                  "\": " + caption_problems[i] + ".";
  }
  mpi_.run_on_all_ranks([&] {
    if (leads()) report_unreadable(problems, options_.on_unreadable);
  });
  size_t kept = 0;
  for (size_t i = 0; i < problems.size(); ++i) {
    if (!problems[i].empty()) continue;
    std::swap(ids_[kept], ids_[i]);
    if (leads()) std::swap(pictures_[kept], pictures_[i]);
    ++kept;
  }
  ids_.resize(kept);
  if (leads()) pictures_.resize(kept);
}

LatentFileHeader Packer::header() const {
  LatentFileHeader header;
  header.scaling_factor = encoders_.vae->scaling_factor();
  header.shift_factor = encoders_.vae->shift_factor();
  const std::string name =
      (fs::absolute(options_.model) / "").lexically_normal().parent_path().filename().string();
  header.vae = "AutoencoderKL of " + name;
  header.kind = options_.kind;
  header.shape = {.channels = encoders_.vae->latent_channels(), .height = side(), .width = side()};
  header.ids = ids_;
  header.caption_rows = table_.rows;
  header.captions = captions_;
  header.text_length = text_length();
  header.text_width = text_width();
  header.provenance = {
      {"vae_sha256", encoders_.vae->weights_sha256()},
      {"resolution", to_string(options_.resolution)},
      {"resize",
       "shorter side to resolution, longer side rounded to nearest, Lanczos with antialiasing"},
      {"crop", "centre square, cut at floor((side - resolution) / 2)"},
      {"background", "white under transparency"}};
  if (options_.kind == LatentKind::kSample) {
    header.provenance["posterior"] = "one sample: seed 0, epoch 0, Philox stream 8, sample = row";
  }
  if (encoders_.text) {
    const std::string layers = to_string(encoders_.text->num_layers());
    header.provenance["text_encoder"] = "CLIPTextModel of " + name;
    header.provenance["text_encoder_sha256"] = encoders_.text->weights_sha256();
    header.provenance["text_hidden_layer"] =
        "last (" + layers + " of " + layers + "), after the final layer norm";
  }
  return header;
}

void Packer::create_file() {
  std::array<uint64_t, 4> offsets{};
  mpi_.run_on_all_ranks([&] {
    if (!leads()) return;
    table_ = number_captions(pictures_);
    if (encoders_.text) captions_ = table_.captions;
    if (!encoders_.text) table_.rows.assign(ids_.size(), {});
    const auto layout = create_latent_file(partial_, header());
    offsets = {layout.latents_offset_bytes, layout.xxh3_offset_bytes,
               layout.prompt_embeds_offset_bytes, layout.pooled_offset_bytes};
  });
  mpi_.broadcast_bytes(std::as_writable_bytes(std::span(offsets)));
  layout_ = {offsets[0], offsets[1], offsets[2], offsets[3]};
  broadcast_texts(mpi_, captions_);
  mpi_.run_on_all_ranks([&] {
    rows_.emplace(partial_, layout_,
                  LatentRowWriter::RowSizes{.latents = stored_channels() * side() * side(),
                                            .prompt_embeds = text_length() * text_width()});
  });
}

std::vector<uint16_t> to_halves(const at::Tensor& tensor) {
  const at::Tensor halves = tensor.to(at::kCPU, at::kHalf).contiguous();
  std::vector<uint16_t> bits(static_cast<size_t>(halves.numel()));
  std::memcpy(bits.data(), halves.data_ptr(), bits.size() * sizeof(uint16_t));
  return bits;
}

bool is_storable(const at::Tensor& tensor) {
  return tensor.abs().max().item<double>() <= kMaxHalf;  // False for NaN.
}

void Packer::encode_captions(int64_t group) const {
  const int64_t length = text_length();
  auto ids = torch::empty({kCaptionGroup, length}, torch::kLong);
  const auto count = static_cast<int64_t>(captions_.size());
  for (int64_t i = 0; i < kCaptionGroup; ++i) {
    const int64_t row = group * kCaptionGroup + i;
    const auto tokens =
        encoders_.tokenizer->encode(row < count ? captions_[static_cast<size_t>(row)] : "");
    std::ranges::copy(tokens, ids[i].data_ptr<int64_t>());
  }
  const auto embeds = encoders_.text->forward(ids).last_hidden_state.to(at::kCPU);  // (16, L, D)
  for (int64_t i = 0; i < kCaptionGroup && group * kCaptionGroup + i < count; ++i) {
    const int64_t row = group * kCaptionGroup + i;
    if (!is_storable(embeds[i])) {
      throw InputError("The text encoder of " + options_.model.string() +
                       " gives numbers beyond half precision for the caption '" +
                       captions_[static_cast<size_t>(row)] + "'. Use other weights.");
    }
    rows_->write_prompt_embeds(row, to_halves(embeds[i]));
  }
}

void Packer::write_latent(int64_t row, const at::Tensor& moments) const {
  const auto halves = moments.chunk(2, 0);
  const at::Tensor& mean = halves[0];  // (C, h, w)
  at::Tensor stored;
  if (options_.kind == LatentKind::kMoments) {
    stored = torch::cat({mean, halves[1].clamp(-kMaxHalf, kMaxHalf)});  // (2C, h, w)
  } else {
    auto normals = torch::empty(mean.sizes());
    PositionRandom(kPosteriorSeed, Stream::kPosterior, 0, static_cast<uint64_t>(row))
        .normals(std::span(normals.data_ptr<float>(), static_cast<size_t>(normals.numel())));
    stored = mean + torch::exp(0.5 * halves[1].clamp(-30.0, 20.0)) * normals;
  }
  if (!is_storable(stored)) {
    throw InputError("The VAE of " + options_.model.string() +
                     " gives numbers beyond half precision for the picture \"" +
                     (options_.images / ids_[static_cast<size_t>(row)]).string() +
                     "\". Use other weights.");
  }
  rows_->write_latent(row, to_halves(stored));
}

void Packer::encode_pictures(int64_t group) const {
  const int64_t resolution = options_.resolution;
  auto pixels = torch::zeros({batch_, 3, resolution, resolution});
  const int64_t begin = group * batch_;
  const int64_t count = std::min(batch_, num_samples() - begin);
  for (int64_t i = 0; i < count; ++i) {
    const auto file = options_.images / ids_[static_cast<size_t>(begin + i)];
    Image image = resize_and_centre_crop(read_picture(file, resolution), resolution);
    const auto bytes =
        torch::from_blob(image.pixels.data(), {resolution, resolution, 3}, torch::kByte);
    pixels[i].copy_(bytes.permute({2, 0, 1}).to(torch::kFloat).div_(127.5).sub_(1.0));
  }
  const auto moments = encoders_.vae->encode_moments(pixels).to(at::kCPU);  // (B, 2C, h, w)
  for (int64_t i = 0; i < count; ++i) write_latent(begin + i, moments[i]);
}

void Packer::encode_all_captions() {
  const auto count = static_cast<int64_t>(captions_.size());
  Progress progress("captions", count, voice());
  run_groups(
      mpi_, num_workers_, (count + kCaptionGroup - 1) / kCaptionGroup,
      [&](int64_t group) { encode_captions(group); },
      [&](int64_t groups) { progress.report(groups * kCaptionGroup); });
}

void Packer::encode_all_pictures() {
  Progress progress("pictures", num_samples(), voice());
  run_groups(
      mpi_, num_workers_, (num_samples() + batch_ - 1) / batch_,
      [&](int64_t group) { encode_pictures(group); },
      [&](int64_t groups) { progress.report(groups * batch_); });
}

void Packer::publish() const {
  if (!leads()) return;
  std::error_code error;
  fs::rename(partial_, options_.out, error);
  if (error) {
    throw UsageError("cannot rename \"" + partial_.string() + "\" to \"" + options_.out.string() +
                     "\": " + error.message() + ". Choose another --out.");
  }
  sync_folder(options_.out.has_parent_path() ? options_.out.parent_path() : fs::path("."));
}

void Packer::remove_partial() const noexcept {
  std::error_code ignored;
  if (leads()) fs::remove(partial_, ignored);
}
}  // namespace

PackSummary pack(MpiEnvironment& mpi, const PackOptions& options) {
  const at::NoGradGuard no_grad;
  return Packer(mpi, options).run();
}
}  // namespace trireme
