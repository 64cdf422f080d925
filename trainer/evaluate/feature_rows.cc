#include "trainer/evaluate/feature_rows.h"

#include <algorithm>

#include "core/error.h"
#include "trainer/evaluate/sampling.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kCells = 8;  // A side.
constexpr double kClipScale = 100.0;

int64_t cells_of(int64_t side) { return std::min(kCells, side); }
}  // namespace

bool has_metric(const ScoresOptions& options, std::string_view name) {
  return std::ranges::find(options.metrics, name) != options.metrics.end();
}

at::Tensor latent_features(const at::Tensor& latents) {
  const std::array<int64_t, 2> cells = {cells_of(latents.size(2)), cells_of(latents.size(3))};
  return at::adaptive_avg_pool2d(latents.to(at::kFloat), cells).flatten(1);
}

FeatureRows::FeatureRows(const ScoresOptions& options, const std::filesystem::path& vae,
                         const std::string& device)
    : device_(device),
      resize_(options.inception_resize),
      needs_latents_(has_metric(options, "latent_frechet")) {
  if (has_metric(options, "fid") || has_metric(options, "kid")) {
    inception_ = InceptionV3::load(options.inception, options.inception_resize);
    inception_->to_device(device);
    inception_width_ = InceptionV3::kNumFeatures;
  }
  if (has_metric(options, "clip_score")) {
    clip_ = ClipPair::load(options.clip);
    clip_->to_device(device);
  }
  if (!vae.empty()) {
    vae_ = AutoencoderKL::load(vae);
    vae_->to_device(device);
  }
}

void FeatureRows::set_latent_shape(const LatentShape& shape) {
  if (needs_latents_) {
    latent_width_ = shape.channels * cells_of(shape.height) * cells_of(shape.width);
  }
}

at::Tensor FeatureRows::of_latents(const at::Tensor& latents) { return of_latents(latents, {}); }

at::Tensor FeatureRows::of_latents(const at::Tensor& latents,
                                   const std::vector<std::string>& captions) {
  const at::NoGradGuard no_grad;
  const at::Tensor mine = latents.to(device_);
  const bool scores_text = clip_ && !captions.empty();
  at::Tensor pixels;
  if (inception_ || scores_text) {
    check(vae_ != nullptr, "a VAE to decode with");
    pixels = decode(*vae_, mine);
  }
  std::vector<at::Tensor> parts;
  if (inception_) parts.push_back(inception_->features(pixels));
  if (needs_latents_) parts.push_back(latent_features(mine));
  if (scores_text) parts.push_back(clip_scores(pixels, captions));
  return at::cat(parts, 1).to(at::kCPU);
}

at::Tensor FeatureRows::of_pixels(const at::Tensor& pixels) {
  const at::NoGradGuard no_grad;
  const at::Tensor mine = pixels.to(device_);
  std::vector<at::Tensor> parts;
  if (inception_) parts.push_back(inception_->features(mine));
  if (needs_latents_) {
    check(vae_ != nullptr, "a VAE to encode with");
    const at::Tensor mean = vae_->encode_moments(mine.to(at::kFloat) / 127.5 - 1).chunk(2, 1)[0];
    parts.push_back(latent_features((mean - vae_->shift_factor()) * vae_->scaling_factor()));
  }
  return at::cat(parts, 1).to(at::kCPU);
}

at::Tensor FeatureRows::clip_scores(const at::Tensor& pixels,
                                    const std::vector<std::string>& captions) {
  const at::Tensor cosine = (clip_->embed_images(pixels) * clip_->embed_texts(captions)).sum(1);
  return (kClipScale * cosine).clamp_min(0).unsqueeze(1);
}

std::string FeatureRows::description() const {
  std::string text = "trireme features 1";
  if (inception_) {
    text += "; inception " + inception_->weights_sha256() +
            (resize_ == InceptionResize::kPytorchFid ? " pytorch_fid" : " torch_fidelity");
  }
  if (needs_latents_) text += "; latents " + std::to_string(latent_width_);
  if (vae_) text += "; vae " + vae_->weights_sha256();
  return text;
}

int64_t FeatureRows::pixels_per_latent() const {
  check(vae_ != nullptr, "a VAE that knows the size of its pictures");
  return vae_->downscale_factor();
}
}  // namespace trireme
