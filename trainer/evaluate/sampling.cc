#include "trainer/evaluate/sampling.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "trainer/diffusion/guided_model.h"
#include "trainer/diffusion/samplers.h"
#include "trainer/evaluate/collect.h"
#include "trainer/in_touch.h"
#include "trainer/pipeline_folder.h"
#include "trainer/progress.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
// Normals of pictures [first, first + count): step 0 is the start, step s what step s adds.
at::Tensor position_noise(uint64_t seed, int64_t step, int64_t first, int64_t count,
                          const LatentShape& shape) {
  auto noise = torch::empty({count, shape.channels, shape.height, shape.width});
  const auto size = static_cast<size_t>(shape.num_elements());
  for (int64_t i = 0; i < count; ++i) {
    PositionRandom(seed, Stream::kSampling, static_cast<uint64_t>(step),
                   static_cast<uint64_t>(first + i))
        .normals(std::span(noise.data_ptr<float>() + static_cast<size_t>(i) * size, size));
  }
  return noise;
}

Condition condition_of(const Session& session, const SamplePrompts& prompts, int64_t first,
                       int64_t count) {
  Condition condition;
  if (prompts.embeds) {
    condition.encoder_hidden_states = prompts.embeds(first, count).to(session.device);
  }
  if (!prompts.labels.empty()) {
    const auto begin = prompts.labels.begin() + first;
    condition.class_labels =
        torch::tensor(std::vector<int64_t>(begin, begin + count)).to(session.device);
  }
  return condition;
}

Condition negative_condition(const Session& session, const SamplePrompts& prompts, int64_t count) {
  Condition condition;
  if (prompts.negative_embeds.defined()) {
    condition.encoder_hidden_states =
        prompts.negative_embeds.expand({count, -1, -1}).to(session.device);
  }
  return condition;
}

std::string bytes_of(const Image& image) {
  return {reinterpret_cast<const char*>(image.pixels.data()), image.pixels.size()};
}

Image image_of(const at::Tensor& pixels) {                   // (3, H, W) uint8
  const auto rows = pixels.permute({1, 2, 0}).contiguous();  // (H, W, 3)
  const auto* data = rows.const_data_ptr<uint8_t>();
  return {.width = rows.size(1), .height = rows.size(0), .pixels = {data, data + rows.numel()}};
}
}  // namespace

at::Tensor denoise(Session& session, const SamplePrompts& prompts, int64_t first, int64_t count,
                   const std::function<void()>& progress) {
  const torch::NoGradGuard no_grad;
  const auto& options = session.config.sample;
  const SamplingPlan plan = plan_sampling(options, session.sampling, *session.schedule,
                                          session.config.objective.prediction);
  const GuidedModel guided(
      *session.model, {.scale = options.guidance, .rescale = options.guidance_rescale},
      condition_of(session, prompts, first, count), negative_condition(session, prompts, count));
  const auto noise = [&](int64_t step) {
    return position_noise(options.seed, step, first, count, prompts.shape).to(session.device);
  };
  return run_sampler(plan, noise(0),
                     {.model = [&](const at::Tensor& x, double time) { return guided(x, time); },
                      .noise = noise,
                      .progress =
                          [&](int64_t) {
                            if (progress) progress();
                          }});
}

at::Tensor sample_latents(MpiEnvironment& mpi, Session& session, const SamplePrompts& prompts) {
  const LatentShape& shape = prompts.shape;
  const int64_t count = prompts.count();
  const int64_t steps = session.config.sample.steps;
  auto latents = torch::zeros({count, shape.channels, shape.height, shape.width}, torch::kDouble);
  Progress progress("sampling steps", count * steps,
                    mpi.rank() == 0 ? Progress::Voice::kLogs : Progress::Voice::kSilent);
  run_in_touch(
      mpi,
      [&](WorkReport& report) {
        for_own_groups(mpi, count, session.config.sample.batch, [&](int64_t first, int64_t n) {
          latents.narrow(0, first, n).copy_(denoise(session, prompts, first, n, [&] {
            report.advance(n);
          }));
        });
      },
      [&](int64_t done) { progress.report(done); });
  all_reduce_in_pieces(mpi, latents);  // Each number is one rank's plus zeros: exact.
  return latents.to(torch::kFloat);
}

at::Tensor decode(AutoencoderKL& vae, const at::Tensor& latents) {
  const torch::NoGradGuard no_grad;
  const auto pixels = vae.decode(latents / vae.scaling_factor() + vae.shift_factor());
  return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch::kUInt8);
}

std::vector<Image> decode_images(MpiEnvironment& mpi, const std::filesystem::path& vae_folder,
                                 const std::string& device, const at::Tensor& latents) {
  const int64_t count = latents.size(0);
  std::vector<Image> mine;
  run_in_touch(mpi, [&](WorkReport& report) {
    if (mpi.rank() >= count) return;
    const auto vae = AutoencoderKL::load(vae_folder);
    vae->to_device(device);
    for_own_groups(mpi, count, 1, [&](int64_t first, int64_t n) {
      mine.push_back(image_of(
          decode(*vae, latents.narrow(0, first, n).to(device)).squeeze(0).to(torch::kCPU)));
      report.advance(n);
    });
  });
  std::array<int64_t, 2> size = {mine.empty() ? 0 : mine.front().width,
                                 mine.empty() ? 0 : mine.front().height};
  mpi.all_reduce_max(size);
  std::vector<Image> images;
  for (int64_t first = 0; first < count; first += mpi.world_size()) {
    const auto own = static_cast<size_t>(first / mpi.world_size());
    const auto round = mpi.gather_strings(own < mine.size() ? bytes_of(mine[own]) : "");
    if (mpi.rank() != 0) continue;
    for (const std::string& bytes : round) {
      if (bytes.empty()) continue;
      images.push_back(
          {.width = size[0], .height = size[1], .pixels = {bytes.begin(), bytes.end()}});
    }
  }
  return images;
}

std::optional<std::filesystem::path> find_vae(const Config& config) {
  return config.sample.vae.empty() ? pipeline_part(config.model.weights, "vae")
                                   : std::optional<std::filesystem::path>(config.sample.vae);
}
}  // namespace trireme
