#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/philox.h"
#include "data/latent_math.h"
#include "data/loader.h"

namespace trireme {
namespace {
constexpr uint64_t kValidationEpoch = 0xffffff;

// The shape of the sample's class.
LatentShape shape_of(const LatentDataset& dataset, int64_t sample) {
  for (const ShapeClass& shape_class : dataset.classes()) {
    const auto& ranges = shape_class.ranges;
    const auto after = std::ranges::upper_bound(ranges, sample, {}, &ShapeClass::Range::first);
    if (after == ranges.begin()) continue;
    if (sample < std::prev(after)->first + std::prev(after)->count) return shape_class.shape;
  }
  throw InternalError("a sample outside every class");
}

uint64_t number_of(const DrawOptions& options, int64_t sample) {
  return static_cast<uint64_t>(options.first_sample + sample);
}

template <typename T>
std::span<T> row_of(std::vector<T>& values, size_t row, int64_t row_elements) {
  const auto size = static_cast<size_t>(row_elements);
  return std::span(values).subspan(row * size, size);
}

// A batch of the right sizes for `draws`, everything but its numbers.
LatentBatch allocate_batch(const LatentDataset& dataset, const DrawOptions& options,
                           std::vector<SampleDraw> draws) {
  check(!draws.empty(), "a batch without samples");
  LatentBatch batch;
  batch.shape = cropped_shape(shape_of(dataset, draws.front().sample), options.crop);
  batch.draws = std::move(draws);
  const size_t count = batch.draws.size();
  const size_t num_elements = count * static_cast<size_t>(batch.shape.num_elements());
  batch.latents.resize(num_elements);
  batch.noise.resize(num_elements);
  batch.timesteps.resize(count);
  batch.uniforms.resize(count);
  if (options.use_text) {
    dataset.require_text();
    const StoredText text = dataset.text().value();
    batch.text_length = text.length;
    batch.text_width = text.width;
    batch.prompt_embeds.resize(count * static_cast<size_t>(text.length * text.width));
    batch.pooled_width = text.pooled_width;
    batch.pooled_prompt_embeds.resize(count * static_cast<size_t>(text.pooled_width));
  }
  if (dataset.has_add_time_ids()) batch.add_time_ids.resize(6 * count);
  if (dataset.has_labels()) batch.labels.resize(count);
  return batch;
}

// Where a crop begins: floor(word x places / 2^32) places down and to the right.
struct CropPlace {
  int64_t top = 0;
  int64_t left = 0;
};

CropPlace random_crop(const LatentShape& whole, const LatentShape& part,
                      const std::array<uint32_t, 4>& words) {
  const auto place = [](uint32_t word, int64_t rest) {
    return static_cast<int64_t>(uint64_t{word} * static_cast<uint64_t>(rest + 1) >> 32);
  };
  return {place(words[1], whole.height - part.height), place(words[2], whole.width - part.width)};
}

CropPlace middle_crop(const LatentShape& whole, const LatentShape& part) {
  return {(whole.height - part.height) / 2, (whole.width - part.width) / 2};
}

// The posterior sample is that of the whole latent, of which the batch may hold a part.
void read_latents(const LatentDataset& dataset, const DrawOptions& options, uint64_t epoch,
                  const LatentShape& whole, const CropPlace& crop, LatentBatch& batch, size_t row) {
  const int64_t sample = batch.draws[row].sample;
  std::vector<float> normals;
  if (dataset.is_moments(sample)) {
    normals.resize(static_cast<size_t>(whole.num_elements()));
    PositionRandom(options.seed, Stream::kPosterior, epoch, number_of(options, sample))
        .normals(normals);
  }
  const std::span<float> out = row_of(batch.latents, row, batch.shape.num_elements());
  if (batch.shape == whole) return dataset.read_latent(sample, normals, out);
  std::vector<float> latent(static_cast<size_t>(whole.num_elements()));
  dataset.read_latent(sample, normals, latent);
  auto target = out.begin();
  for (int64_t line = 0; line < batch.shape.channels * batch.shape.height; ++line) {
    const int64_t channel = line / batch.shape.height;
    const int64_t y = crop.top + line % batch.shape.height;
    const int64_t first = (channel * whole.height + y) * whole.width + crop.left;
    target = std::copy_n(latent.begin() + first, batch.shape.width, target);
  }
}

void read_conditions(const LatentDataset& dataset, int64_t text_row, const LatentShape& whole,
                     const CropPlace& crop, LatentBatch& batch, size_t row) {
  const int64_t sample = batch.draws[row].sample;
  if (!batch.prompt_embeds.empty()) {
    dataset.read_prompt_embeds(
        text_row, row_of(batch.prompt_embeds, row, batch.text_length * batch.text_width));
  }
  if (!batch.pooled_prompt_embeds.empty()) {
    dataset.read_pooled_prompt_embeds(text_row,
                                      row_of(batch.pooled_prompt_embeds, row, batch.pooled_width));
  }
  if (!batch.add_time_ids.empty()) {
    // Original size, top left of the crop, size: of each first the height. In pixels.
    const std::span<float> ids = row_of(batch.add_time_ids, row, 6);
    dataset.read_add_time_ids(sample, ids);
    if (batch.shape != whole) {
      const float pixels_down = ids[4] / static_cast<float>(whole.height);
      const float pixels_right = ids[5] / static_cast<float>(whole.width);
      ids[2] += pixels_down * static_cast<float>(crop.top);
      ids[3] += pixels_right * static_cast<float>(crop.left);
      ids[4] = pixels_down * static_cast<float>(batch.shape.height);
      ids[5] = pixels_right * static_cast<float>(batch.shape.width);
    }
  }
  if (!batch.labels.empty()) batch.labels[row] = dataset.label(sample);
}

// Adds one normal a channel, times `noise_offset`, to a sample's noise.
void add_noise_offset(const LatentShape& shape, double noise_offset, const PositionRandom& random,
                      std::span<float> noise) {
  std::vector<float> offsets(static_cast<size_t>(shape.channels));
  random.normals(offsets);
  const auto plane = static_cast<size_t>(shape.height * shape.width);
  for (size_t channel = 0; channel < offsets.size(); ++channel) {
    const float offset = static_cast<float>(noise_offset) * offsets[channel];
    for (float& value : noise.subspan(channel * plane, plane)) value += offset;
  }
}

int64_t training_text_row(const LatentDataset& dataset, const DrawOptions& options,
                          const SampleDraw& draw, const std::array<uint32_t, 4>& words) {
  if (uniform(words[0]) < options.caption_dropout) return dataset.empty_prompt_row(draw.sample);
  const std::vector<int64_t> rows = dataset.caption_rows(draw.sample);
  return rows[static_cast<size_t>(uint64_t{words[1]} * rows.size() >> 32)];
}

void draw_training_sample(const LatentDataset& dataset, const DrawOptions& options,
                          const LatentShape& whole, LatentBatch& batch, size_t row) {
  const SampleDraw draw = batch.draws[row];
  const auto random = [&](Stream stream) {
    return PositionRandom(options.seed, stream, static_cast<uint64_t>(draw.epoch),
                          number_of(options, draw.sample));
  };
  const BatchPosition position{.step = batch.step,
                               .position = batch.first_position + static_cast<int64_t>(row),
                               .global_batch = options.global_batch.global_batch(batch.step)};
  const SampleDraw numbered{.sample = static_cast<int64_t>(number_of(options, draw.sample)),
                            .epoch = draw.epoch};
  const TimestepDraw time = draw_timestep(options.timesteps, options.seed, numbered, position);
  batch.uniforms[row] = time.uniform;
  batch.timesteps[row] = time.timestep;
  const auto augmentation = random(Stream::kAugmentation).words();
  const CropPlace crop = random_crop(whole, batch.shape, augmentation);
  read_latents(dataset, options, static_cast<uint64_t>(draw.epoch), whole, crop, batch, row);
  if (uniform(augmentation[0]) < options.flip) {
    flip_width(batch.shape, row_of(batch.latents, row, batch.shape.num_elements()));
  }
  const std::span<float> noise = row_of(batch.noise, row, batch.shape.num_elements());
  random(Stream::kNoise).normals(noise);
  if (options.noise_offset != 0.0) {
    add_noise_offset(batch.shape, options.noise_offset, random(Stream::kNoiseOffset), noise);
  }
  const int64_t text_row =
      options.use_text ? training_text_row(dataset, options, draw, random(Stream::kCaption).words())
                       : 0;
  read_conditions(dataset, text_row, whole, crop, batch, row);
}
}  // namespace

LatentBatch make_training_batch(const LatentDataset& dataset, const DrawOptions& options,
                                int64_t step, int64_t first_position,
                                std::vector<SampleDraw> draws) {
  LatentBatch batch = allocate_batch(dataset, options, std::move(draws));
  batch.step = step;
  batch.first_position = first_position;
  const LatentShape whole = shape_of(dataset, batch.draws.front().sample);
  for (size_t row = 0; row < batch.draws.size(); ++row) {
    draw_training_sample(dataset, options, whole, batch, row);
  }
  return batch;
}

LatentBatch make_evaluation_batch(const LatentDataset& dataset, const DrawOptions& options,
                                  const std::vector<int64_t>& samples, int k, int num_points,
                                  const std::vector<int64_t>& noise_samples) {
  check(k >= 0 && k < num_points, "an evaluation point that does not exist");
  check(noise_samples.empty() || noise_samples.size() == samples.size(), "noise for each sample");
  std::vector<SampleDraw> draws;
  for (const int64_t sample : samples) {
    draws.push_back({.sample = sample, .epoch = static_cast<int64_t>(kValidationEpoch)});
  }
  LatentBatch batch = allocate_batch(dataset, options, std::move(draws));
  const LatentShape whole = shape_of(dataset, samples.front());
  const CropPlace crop = middle_crop(whole, batch.shape);
  const int64_t num_timesteps = options.timesteps.num_timesteps;
  for (size_t row = 0; row < samples.size(); ++row) {
    const auto noise_sample =
        static_cast<uint64_t>(noise_samples.empty() ? samples[row] : noise_samples[row]);
    const double word_uniform = uniform(
        PositionRandom(options.seed, Stream::kTimestep, kValidationEpoch, noise_sample).words()[0]);
    batch.uniforms[row] = (static_cast<double>(k) + word_uniform) / static_cast<double>(num_points);
    const double timestep = static_cast<double>(num_timesteps) *
                            (static_cast<double>(k) + word_uniform) /
                            static_cast<double>(num_points);
    batch.timesteps[row] = std::min(static_cast<int64_t>(std::floor(timestep)), num_timesteps - 1);
    read_latents(dataset, options, kValidationEpoch, whole, crop, batch, row);
    PositionRandom(options.seed, Stream::kNoise, kValidationEpoch - static_cast<uint64_t>(k),
                   noise_sample)
        .normals(row_of(batch.noise, row, batch.shape.num_elements()));
    const int64_t text_row = options.use_text ? dataset.caption_rows(samples[row]).front() : 0;
    read_conditions(dataset, text_row, whole, crop, batch, row);
  }
  return batch;
}
}  // namespace trireme
