#include "bench/workload.h"

#include <string>
#include <vector>

#include <c10/util/Half.h>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/philox.h"
#include "data/latent_rows.h"
#include "data/latent_writer.h"

namespace trireme::bench {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
constexpr int64_t kTextLength = 8;
constexpr int64_t kTextWidth = 64;
constexpr int64_t kCaptions = 8;

Json unet_config(const std::vector<int>& channels, int sample_size) {
  const size_t count = channels.size();
  std::vector<std::string> down(count, "CrossAttnDownBlock2D");
  std::vector<std::string> up(count, "CrossAttnUpBlock2D");
  down.back() = "DownBlock2D";
  up.front() = "UpBlock2D";
  return {{"_class_name", "UNet2DConditionModel"},
          {"sample_size", sample_size},
          {"in_channels", 4},
          {"out_channels", 4},
          {"layers_per_block", 1},
          {"block_out_channels", channels},
          {"down_block_types", down},
          {"up_block_types", up},
          {"cross_attention_dim", kTextWidth},
          {"attention_head_dim", 8},
          {"norm_num_groups", 32}};
}

// Values that look like latents, in half precision.
std::vector<uint16_t> halves(int64_t count, uint64_t number) {
  std::vector<float> values(static_cast<size_t>(count));
  PositionRandom(7, Stream::kSampling, 0, number).normals(values);
  std::vector<uint16_t> result;
  for (const float value : values) result.push_back(c10::Half(value).x);
  return result;
}

void write_latents(const fs::path& path, int64_t num_samples, LatentShape shape) {
  LatentFileHeader header;
  header.vae = "random numbers, for measurements";
  header.kind = LatentKind::kSample;
  header.shape = shape;
  for (int64_t i = 0; i < num_samples; ++i) {
    header.ids.push_back(std::to_string(i));
    header.caption_rows.push_back({static_cast<int32_t>(1 + i % (kCaptions - 1))});
  }
  for (int64_t i = 0; i < kCaptions; ++i)
    header.captions.push_back(i == 0 ? "" : "caption " + std::to_string(i));
  header.text_length = kTextLength;
  header.text_width = kTextWidth;
  const LatentFileLayout layout = create_latent_file(path, header);
  const LatentRowWriter writer(
      path, layout, {.latents = shape.num_elements(), .prompt_embeds = kTextLength * kTextWidth});
  for (int64_t i = 0; i < num_samples; ++i) {
    writer.write_latent(i, halves(shape.num_elements(), static_cast<uint64_t>(i)));
  }
  for (int64_t i = 0; i < kCaptions; ++i) {
    writer.write_prompt_embeds(
        i, halves(kTextLength * kTextWidth, 1'000'000 + static_cast<uint64_t>(i)));
  }
}
}  // namespace

void write_workload(const fs::path& folder) {
  fs::create_directories(folder / "unet");
  fs::create_directories(folder / "large");
  write_text_file_atomically(folder / "unet" / "config.json",
                             unet_config({64, 128, 192, 192}, 16).dump(2));
  write_text_file_atomically(folder / "large" / "config.json",
                             unet_config({128, 256, 320, 320}, 8).dump(2));
  write_latents(folder / "step.h5", 512, {.channels = 4, .height = 16, .width = 16});
  write_latents(folder / "large.h5", 64, {.channels = 4, .height = 8, .width = 8});
  write_latents(folder / "loader.h5", 8192, {.channels = 4, .height = 32, .width = 32});
}

Config training_config(const fs::path& folder, Model model, int num_ranks) {
  const bool is_large = model == Model::kLarge;
  Config config;
  config.run.steps = 1'000'000;
  config.model.config = (folder / (is_large ? "large" : "unet") / "config.json").string();
  config.data.train = {(folder / (is_large ? "large.h5" : "step.h5")).string()};
  config.batch.global = int64_t{is_large ? 1 : 8} * num_ranks;
  config.eval.every_steps = 0;
  config.sample.count = 0;
  config.checkpoint.every_steps = 0;
  return config;
}
}  // namespace trireme::bench
