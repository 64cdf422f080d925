#include "trainer/models/autoencoder_kl.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include "trainer/torch_api.h"

#include "core/error.h"
#include "trainer/models/autoencoder_kl_blocks.h"
#include "trainer/models/autoencoder_kl_config.h"
#include "trainer/models/json_file.h"
#include "trainer/models/pretrained_folder.h"

namespace trireme {
namespace {
using Part = AutoencoderKLConfig::Part;

// Files of before diffusers 0.18 name the attention's projections otherwise.
std::string current_name(const std::string& stored) {
  if (stored.find(".attentions.") == std::string::npos) return stored;
  constexpr std::pair<std::string_view, std::string_view> kRenamed[] = {
      {".query.", ".to_q."},
      {".key.", ".to_k."},
      {".value.", ".to_v."},
      {".proj_attn.", ".to_out.0."}};
  for (const auto& [then, now] : kRenamed) {
    const size_t place = stored.find(then);
    if (place == std::string::npos) continue;
    return stored.substr(0, place) + std::string(now) + stored.substr(place + then.size());
  }
  return stored;
}

class AutoencoderKLImpl final : public AutoencoderKL {
 public:
  explicit AutoencoderKLImpl(const AutoencoderKLConfig& config)
      : config_(config),
        encoder_(ParameterScope(parameters_) / "encoder", config),
        decoder_(ParameterScope(parameters_) / "decoder", config) {
    const ParameterScope root(parameters_);
    const Conv2d::Options pointwise{.kernel = 1, .stride = 1, .padding = 0};
    const int64_t channels = config.latent_channels;
    if (config.quant_conv == Part::kPresent) {
      quant_conv_.emplace(root / "quant_conv", 2 * channels, 2 * channels, pointwise);
    }
    if (config.post_quant_conv == Part::kPresent) {
      post_quant_conv_.emplace(root / "post_quant_conv", channels, channels, pointwise);
    }
  }

  void read(const std::filesystem::path& weights) {
    const SafetensorsReader reader(weights);
    read_frozen_parameters(reader, current_name, parameters_);
    files_ = reader.files();
  }

  at::Tensor encode_moments(const at::Tensor& images) override {
    const at::NoGradGuard no_grad;
    check(images.dim() == 4 && images.size(1) == config_.in_channels,
          "images for the VAE have shape (N, in_channels, H, W)");
    const at::Tensor moments = encoder_(images.to(device_, at::kFloat));
    return quant_conv_ ? (*quant_conv_)(moments) : moments;  // (N, 2C, H/f, W/f)
  }

  at::Tensor decode(const at::Tensor& latents) override {
    const at::NoGradGuard no_grad;
    check(latents.dim() == 4 && latents.size(1) == config_.latent_channels,
          "latents for the VAE have shape (N, latent_channels, h, w)");
    const at::Tensor x = latents.to(device_, at::kFloat);
    return decoder_(post_quant_conv_ ? (*post_quant_conv_)(x) : x);  // (N, 3, h*f, w*f)
  }

  int64_t latent_channels() const noexcept override { return config_.latent_channels; }
  int64_t downscale_factor() const noexcept override {
    return int64_t{1} << (config_.block_out_channels.size() - 1);
  }
  double scaling_factor() const noexcept override { return config_.scaling_factor; }
  double shift_factor() const noexcept override { return config_.shift_factor; }
  std::string weights_sha256() const override { return sha256_of_weights(files_); }

  void to_device(const std::string& device) override {
    move_parameters(parameters_, device);
    device_ = at::Device(device);
  }

 private:
  AutoencoderKLConfig config_;
  std::vector<NamedParameter> parameters_;  // Before the layers, which fill it.
  VaeEncoder encoder_;
  VaeDecoder decoder_;
  std::optional<Conv2d> quant_conv_;
  std::optional<Conv2d> post_quant_conv_;
  std::vector<std::filesystem::path> files_;
  at::Device device_ = at::kCPU;
};
}  // namespace

std::unique_ptr<AutoencoderKL> AutoencoderKL::load(const std::filesystem::path& folder) {
  const auto part = find_part_folder(folder, "vae", "config.json");
  const auto config_file = part / "config.json";
  const auto json = read_json_object(config_file, "VAE config");
  auto vae = std::make_unique<AutoencoderKLImpl>(parse_autoencoder_kl_config(json, config_file));
  vae->read(find_weights_file(part, "diffusion_pytorch_model"));
  return vae;
}
}  // namespace trireme
