#include "trainer/evaluate/sample_grid.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "core/philox.h"
#include "trainer/diffusion/ddim.h"
#include "trainer/models/autoencoder_kl.h"
#include "trainer/models/clip_text.h"
#include "trainer/pipeline_folder.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kGroup = 4;  // Samples denoised together, whatever the number of ranks.
constexpr int64_t kGap = 2;    // Pixels between pictures.

at::Tensor text_row(const LatentDataset& data, int64_t row) {
  const auto text = data.text();
  auto embeds = torch::empty({1, text->length, text->width});
  data.read_prompt_embeds(row,
                          std::span(embeds.data_ptr<float>(), static_cast<size_t>(embeds.numel())));
  return embeds;
}

at::Tensor encode_text(ClipTextModel& encoder, const ClipTokenizer& tokenizer,
                       const std::string& text) {
  const auto ids = tokenizer.encode(text);
  return encoder.forward(torch::tensor(ids).unsqueeze(0)).last_hidden_state;
}

SamplePrompts prompts_of_config(const Session& session) {
  const auto& config = session.config;
  const auto encoder_folder = pipeline_part(config.model.weights, "text_encoder");
  const auto tokenizer_folder = pipeline_part(config.model.weights, "tokenizer");
  if (!encoder_folder || !tokenizer_folder) {
    throw UsageError(
        "sample.prompts needs text_encoder/ and tokenizer/ in or beside model.weights = '" +
        config.model.weights + "'. Leave sample.prompts empty to use captions of the data.");
  }
  const torch::NoGradGuard no_grad;
  const auto encoder = ClipTextModel::load(*encoder_folder);
  const auto tokenizer = ClipTokenizer::load(*tokenizer_folder);
  SamplePrompts prompts;
  prompts.shape = session.validation_dataset().classes().front().shape;
  std::vector<at::Tensor> embeds;
  for (int64_t i = 0; i < config.sample.count; ++i) {
    const auto& text = config.sample.prompts[static_cast<size_t>(i) % config.sample.prompts.size()];
    prompts.captions.push_back(text);
    embeds.push_back(encode_text(*encoder, *tokenizer, text));
  }
  prompts.embeds = torch::cat(embeds);
  prompts.empty_embeds = encode_text(*encoder, *tokenizer, "");
  return prompts;
}

Condition condition_of(const at::Tensor& embeds, int64_t first, int64_t count,
                       const std::string& device) {
  Condition condition;
  if (embeds.defined()) condition.encoder_hidden_states = embeds.narrow(0, first, count).to(device);
  return condition;
}

at::Tensor initial_noise(uint64_t seed, int64_t first, int64_t count, const LatentShape& shape) {
  auto noise = torch::empty({count, shape.channels, shape.height, shape.width});
  const auto size = static_cast<size_t>(shape.num_elements());
  for (int64_t i = 0; i < count; ++i) {
    PositionRandom(seed, Stream::kSampling, 0, static_cast<uint64_t>(first + i))
        .normals(std::span(noise.data_ptr<float>() + static_cast<size_t>(i) * size, size));
  }
  return noise;
}
}  // namespace

std::vector<int64_t> spread_samples(const Session& session, int64_t count) {
  const auto& data = session.validation_dataset();
  const bool from_split = !session.validation_files;
  const bool validates = session.num_validation() > 0;
  std::vector<int64_t> samples;
  const Split everything(data.classes());
  const int64_t available = !from_split ? everything.num_training(0)
                            : validates ? session.split->num_validation(0)
                                        : session.split->num_training(0);
  for (int64_t i = 0; i < count && available > 0; ++i) {
    const int64_t k = i * available / count;
    samples.push_back(!from_split ? everything.training_sample(0, k)
                      : validates ? session.split->validation_sample(0, k)
                                  : session.split->training_sample(0, k));
  }
  return samples;
}

SamplePrompts prompts_of_samples(const Session& session, const std::vector<int64_t>& samples) {
  const auto& data = session.validation_dataset();
  SamplePrompts prompts;
  prompts.shape = data.classes().front().shape;
  std::vector<at::Tensor> embeds;
  for (const int64_t sample : samples) {
    if (!session.draw.use_text) {
      prompts.captions.push_back(data.id(sample));
      continue;
    }
    const int64_t row = data.caption_rows(sample).front();
    prompts.captions.push_back(data.caption(row));
    embeds.push_back(text_row(data, row));
    if (!prompts.empty_embeds.defined()) {
      prompts.empty_embeds = text_row(data, data.empty_prompt_row(sample));
    }
  }
  if (!embeds.empty()) prompts.embeds = torch::cat(embeds);
  return prompts;
}

SamplePrompts choose_prompts(const Session& session) {
  return session.config.sample.prompts.empty() || !session.draw.use_text
             ? prompts_of_samples(session, spread_samples(session, session.config.sample.count))
             : prompts_of_config(session);
}

at::Tensor sample_latents(MpiEnvironment& mpi, Session& session, const SamplePrompts& prompts) {
  const torch::NoGradGuard no_grad;
  const auto& options = session.config.sample;
  const auto count = static_cast<int64_t>(prompts.captions.size());
  const LatentShape& shape = prompts.shape;
  auto latents = torch::zeros({count, shape.channels, shape.height, shape.width}, torch::kDouble);
  mpi.run_on_all_ranks([&] {
    for (int64_t first = 0; first < count; first += kGroup) {
      if (first / kGroup % mpi.world_size() != mpi.rank()) continue;
      const int64_t n = std::min(kGroup, count - first);
      Condition unconditional;
      if (prompts.empty_embeds.defined()) {
        unconditional.encoder_hidden_states =
            prompts.empty_embeds.expand({n, -1, -1}).to(session.device);
      }
      const auto result =
          ddim_sample(*session.model, *session.schedule, session.config.objective.prediction,
                      {.steps = options.steps, .guidance = options.guidance},
                      initial_noise(options.seed, first, n, shape).to(session.device),
                      condition_of(prompts.embeds, first, n, session.device), unconditional);
      latents.narrow(0, first, n).copy_(result);
    }
  });
  // Each latent is one rank's plus zeros: exact.
  mpi.all_reduce_sum(std::span(latents.data_ptr<double>(), static_cast<size_t>(latents.numel())));
  return latents.to(torch::kFloat);
}

std::vector<Image> decode_images(const std::filesystem::path& vae_folder,
                                 const at::Tensor& latents) {
  const torch::NoGradGuard no_grad;
  const auto vae = AutoencoderKL::load(vae_folder);
  std::vector<Image> images;
  for (int64_t i = 0; i < latents.size(0); ++i) {
    const auto stored = latents.narrow(0, i, 1) / vae->scaling_factor() + vae->shift_factor();
    const auto pixels = ((vae->decode(stored) + 1) * 127.5).round().clamp(0, 255).to(torch::kUInt8);
    const auto rows = pixels.squeeze(0).permute({1, 2, 0}).contiguous();  // (H, W, 3)
    const auto* data = rows.data_ptr<uint8_t>();
    images.push_back(
        {.width = rows.size(1), .height = rows.size(0), .pixels = {data, data + rows.numel()}});
  }
  return images;
}

Image tile(const std::vector<Image>& images, int64_t columns) {
  check(!images.empty() && columns > 0, "pictures to tile");
  const int64_t width = images.front().width;
  const int64_t height = images.front().height;
  const int64_t rows = (static_cast<int64_t>(images.size()) + columns - 1) / columns;
  Image grid{.width = columns * width + (columns - 1) * kGap,
             .height = rows * height + (rows - 1) * kGap,
             .pixels = {}};
  grid.pixels.assign(static_cast<size_t>(grid.width * grid.height * 3), 255);
  for (size_t i = 0; i < images.size(); ++i) {
    const int64_t left = static_cast<int64_t>(i) % columns * (width + kGap);
    const int64_t top = static_cast<int64_t>(i) / columns * (height + kGap);
    for (int64_t y = 0; y < height; ++y) {
      std::copy_n(images[i].pixels.begin() + y * width * 3, width * 3,
                  grid.pixels.begin() + ((top + y) * grid.width + left) * 3);
    }
  }
  return grid;
}

std::optional<std::filesystem::path> find_vae(const Config& config) {
  return config.sample.vae.empty() ? pipeline_part(config.model.weights, "vae")
                                   : std::optional<std::filesystem::path>(config.sample.vae);
}

void write_sample_grid(MpiEnvironment& mpi, Session& session, const std::filesystem::path& file) {
  const auto vae = find_vae(session.config);
  if (!vae) return;
  SamplePrompts prompts;
  mpi.run_on_all_ranks([&] { prompts = choose_prompts(session); });
  if (prompts.captions.empty()) return;
  const at::Tensor latents = sample_latents(mpi, session, prompts);
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    const auto images = decode_images(*vae, latents);
    const auto columns =
        static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(images.size()))));
    std::filesystem::create_directories(file.parent_path());
    write_png(file, tile(images, columns));
    log::info("samples " + file.filename().string());
  });
}
}  // namespace trireme
