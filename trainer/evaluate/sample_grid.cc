#include "trainer/evaluate/sample_grid.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/formatted.h"
#include "core/log.h"
#include "trainer/evaluate/sampling.h"

namespace trireme {
namespace {
constexpr int64_t kGap = 2;  // Pixels between pictures.

std::string short_number(double value) { return formatted("%g", value); }

std::string sampler_name(const Session& session) {
  switch (resolve_sampler(session.config.sample.sampler, session.config.objective.prediction)) {
    case SamplerName::kDdpm:
      return "ddpm";
    case SamplerName::kDdim:
      return "ddim";
    case SamplerName::kEuler:
      return "euler";
    case SamplerName::kEulerAncestral:
      return "euler_ancestral";
    case SamplerName::kHeun:
      return "heun";
    case SamplerName::kDpmpp2m:
      return "dpmpp_2m";
    default:
      return "flow_euler";
  }
}

std::vector<ImageText> describe(const Session& session, const SamplePrompts& prompts,
                                const std::string& prompt, const std::vector<ImageText>& origin) {
  const auto& sample = session.config.sample;
  const std::string sampler = sampler_name(session);
  std::string parameters = prompt + "\n";
  if (!prompts.negative_prompt.empty()) {
    parameters += "Negative prompt: " + prompts.negative_prompt + "\n";
  }
  parameters += "Steps: " + std::to_string(sample.steps) + ", Sampler: " + sampler +
                ", CFG scale: " + short_number(sample.guidance) +
                ", Seed: " + std::to_string(sample.seed);
  std::vector<ImageText> texts = {
      {"prompt", prompt},
      {"negative_prompt", prompts.negative_prompt},
      {"seed", std::to_string(sample.seed)},
      {"sampler", sampler},
      {"steps", std::to_string(sample.steps)},
      {"guidance", short_number(sample.guidance)},
      {"guidance_rescale", short_number(sample.guidance_rescale)},
      {"model", session.config.model.weights.empty() ? session.config.model.config
                                                     : session.config.model.weights},
      {"parameters", parameters},
      {"Software", "trireme"}};
  texts.insert(texts.end(), origin.begin(), origin.end());
  return texts;
}
}  // namespace

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

int64_t square_columns(size_t num_images) {
  return static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(num_images))));
}

std::vector<ImageText> describe_sample(const Session& session, const SamplePrompts& prompts,
                                       int64_t index, const std::vector<ImageText>& origin) {
  auto texts = describe(session, prompts, prompts.captions.at(static_cast<size_t>(index)), origin);
  texts.push_back({"index", std::to_string(index)});
  return texts;
}

std::vector<ImageText> describe_grid(const Session& session, const SamplePrompts& prompts,
                                     const std::vector<ImageText>& origin) {
  std::string lines;
  for (const auto& caption : prompts.captions) lines += (lines.empty() ? "" : "\n") + caption;
  return describe(session, prompts, lines, origin);
}

void write_sample_grid(MpiEnvironment& mpi, const Session& session,
                       const std::filesystem::path& vae_folder, const SamplePrompts& prompts,
                       const at::Tensor& latents, const std::filesystem::path& file) {
  const auto images = decode_images(mpi, vae_folder, session.device, latents);
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    std::filesystem::create_directories(file.parent_path());
    write_png(file, tile(images, square_columns(images.size())), describe_grid(session, prompts));
    log::info("samples " + file.filename().string());
  });
}
}  // namespace trireme
