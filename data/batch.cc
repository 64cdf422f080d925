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
  batch.shape = shape_of(dataset, draws.front().sample);
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

void read_latents(const LatentDataset& dataset, const DrawOptions& options, uint64_t epoch,
                  LatentBatch& batch, size_t row) {
  const int64_t sample = batch.draws[row].sample;
  std::vector<float> normals;
  if (dataset.is_moments(sample)) {
    normals.resize(static_cast<size_t>(batch.shape.num_elements()));
    PositionRandom(options.seed, Stream::kPosterior, epoch, number_of(options, sample))
        .normals(normals);
  }
  dataset.read_latent(sample, normals, row_of(batch.latents, row, batch.shape.num_elements()));
}

void read_conditions(const LatentDataset& dataset, int64_t text_row, LatentBatch& batch,
                     size_t row) {
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
    dataset.read_add_time_ids(sample, row_of(batch.add_time_ids, row, 6));
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
                          LatentBatch& batch, size_t row) {
  const SampleDraw draw = batch.draws[row];
  const auto random = [&](Stream stream) {
    return PositionRandom(options.seed, stream, static_cast<uint64_t>(draw.epoch),
                          number_of(options, draw.sample));
  };
  const uint32_t word = random(Stream::kTimestep).words()[0];
  batch.uniforms[row] = uniform(word);
  batch.timesteps[row] =
      static_cast<int64_t>(uint64_t{word} * static_cast<uint64_t>(options.num_timesteps) >> 32);
  read_latents(dataset, options, static_cast<uint64_t>(draw.epoch), batch, row);
  if (uniform(random(Stream::kAugmentation).words()[0]) < options.flip) {
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
  read_conditions(dataset, text_row, batch, row);
}
}  // namespace

LatentBatch make_training_batch(const LatentDataset& dataset, const DrawOptions& options,
                                int64_t step, int64_t first_position,
                                std::vector<SampleDraw> draws) {
  LatentBatch batch = allocate_batch(dataset, options, std::move(draws));
  batch.step = step;
  batch.first_position = first_position;
  for (size_t row = 0; row < batch.draws.size(); ++row) {
    draw_training_sample(dataset, options, batch, row);
  }
  return batch;
}

LatentBatch make_evaluation_batch(const LatentDataset& dataset, const DrawOptions& options,
                                  const std::vector<int64_t>& samples, int k, int num_points) {
  check(k >= 0 && k < num_points, "an evaluation point that does not exist");
  std::vector<SampleDraw> draws;
  for (const int64_t sample : samples) {
    draws.push_back({.sample = sample, .epoch = static_cast<int64_t>(kValidationEpoch)});
  }
  LatentBatch batch = allocate_batch(dataset, options, std::move(draws));
  for (size_t row = 0; row < samples.size(); ++row) {
    const auto sample = static_cast<uint64_t>(samples[row]);
    const double word_uniform = uniform(
        PositionRandom(options.seed, Stream::kTimestep, kValidationEpoch, sample).words()[0]);
    batch.uniforms[row] = (static_cast<double>(k) + word_uniform) / static_cast<double>(num_points);
    const double timestep = static_cast<double>(options.num_timesteps) *
                            (static_cast<double>(k) + word_uniform) /
                            static_cast<double>(num_points);
    batch.timesteps[row] =
        std::min(static_cast<int64_t>(std::floor(timestep)), options.num_timesteps - 1);
    read_latents(dataset, options, kValidationEpoch, batch, row);
    PositionRandom(options.seed, Stream::kNoise, kValidationEpoch - static_cast<uint64_t>(k),
                   sample)
        .normals(row_of(batch.noise, row, batch.shape.num_elements()));
    const int64_t text_row = options.use_text ? dataset.caption_rows(samples[row]).front() : 0;
    read_conditions(dataset, text_row, batch, row);
  }
  return batch;
}
}  // namespace trireme
