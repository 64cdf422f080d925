#include "data/loader.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/philox.h"

namespace trireme {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Samples of (2, 2, 3) whose element i is 10 sample + i; sample s has s mod 4 captions, 1, 2, ….
class FakeDataset : public LatentDataset {
 public:
  explicit FakeDataset(int64_t num_samples)
      : classes_{{.shape = kShape, .ranges = {{0, num_samples}}, .num_samples = num_samples}} {}

  int64_t num_samples() const noexcept override { return classes_[0].num_samples; }
  const std::vector<ShapeClass>& classes() const noexcept override { return classes_; }
  std::optional<StoredText> text() const noexcept override { return StoredText{4, 1, 2, 1}; }
  void require_text() const override {}
  void require_labels(int64_t) const override {}
  bool has_add_time_ids() const noexcept override { return false; }
  bool has_labels() const noexcept override { return true; }
  int64_t max_captions() const noexcept override { return 3; }
  void read_latent(int64_t sample, std::span<const float> posterior_normals,
                   std::span<float> out) const override {
    if (sample == bad_sample) throw InputError("sample is bad");
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<float>(10 * sample) + static_cast<float>(i);
      if (!posterior_normals.empty()) out[i] = posterior_normals[i];
    }
  }
  bool is_moments(int64_t) const override { return moments; }
  std::vector<int64_t> caption_rows(int64_t sample) const override {
    std::vector<int64_t> rows;
    for (int64_t row = 1; row <= sample % 4; ++row) rows.push_back(row);
    if (rows.empty()) rows.push_back(0);
    return rows;
  }
  int64_t empty_prompt_row(int64_t) const override { return 0; }
  void read_prompt_embeds(int64_t text_row, std::span<float> out) const override {
    std::ranges::fill(out, static_cast<float>(text_row));
  }
  void read_pooled_prompt_embeds(int64_t text_row, std::span<float> out) const override {
    std::ranges::fill(out, static_cast<float>(-text_row));
  }
  std::string caption(int64_t) const override { return ""; }
  void read_add_time_ids(int64_t, std::span<float>) const override {}
  int64_t label(int64_t sample) const override { return sample + 5; }
  std::string id(int64_t) const override { return ""; }
  std::string describe(int64_t) const override { return ""; }
  std::vector<LatentFileSummary> summaries() const override { return {}; }

  static constexpr LatentShape kShape = {2, 2, 3};
  bool moments = false;
  int64_t bad_sample = -1;

 private:
  std::vector<ShapeClass> classes_;
};

std::vector<SampleDraw> first_draws(int64_t count, int64_t epoch) {
  std::vector<SampleDraw> draws;
  for (int64_t sample = 0; sample < count; ++sample) draws.push_back({sample, epoch});
  return draws;
}

uint32_t word(Stream stream, int64_t epoch, int64_t sample, size_t index) {
  return PositionRandom(42, stream, static_cast<uint64_t>(epoch), static_cast<uint64_t>(sample))
      .words()[index];
}

TEST(TrainingBatchTest, NoiseAndTimestepsAreTheDocumentedOnes) {
  const FakeDataset dataset(8);
  const auto batch = make_training_batch(dataset, {.seed = 42}, 3, 4, {{7, 0}});
  EXPECT_THAT(std::vector<float>(batch.noise.begin(), batch.noise.begin() + 4),
              ElementsAre(-0.74448484F, 0.41399145F, -0.46544737F, 0.44521943F));
  EXPECT_THAT(batch.timesteps, ElementsAre(768));
  EXPECT_THAT(batch.uniforms, ElementsAre(uniform(word(Stream::kTimestep, 0, 7, 0))));
  EXPECT_EQ(batch.step, 3);
  EXPECT_EQ(batch.first_position, 4);
  EXPECT_EQ(batch.shape, FakeDataset::kShape);
  EXPECT_THAT(batch.labels, ElementsAre(12));
  EXPECT_EQ(batch.latents[11], 81.0F);
}

TEST(TrainingBatchTest, EverySampleIsAsIfItWereAlone) {
  const FakeDataset dataset(16);
  const DrawOptions options = {
      .seed = 42, .caption_dropout = 0.3, .flip = 0.5, .noise_offset = 0.1};
  const auto whole = make_training_batch(dataset, options, 1, 0, first_draws(16, 2));
  for (size_t i = 0; i < 16; ++i) {
    const auto alone = make_training_batch(dataset, options, 9, 5, {whole.draws[i]});
    EXPECT_TRUE(std::equal(alone.noise.begin(), alone.noise.end(), whole.noise.begin() + 12 * i));
    EXPECT_TRUE(
        std::equal(alone.latents.begin(), alone.latents.end(), whole.latents.begin() + 12 * i));
    EXPECT_EQ(alone.prompt_embeds[0], whole.prompt_embeds[2 * i]);
    EXPECT_EQ(alone.timesteps[0], whole.timesteps[i]);
  }
}

TEST(TrainingBatchTest, FlipMirrorsRowsOfTheChosenSamples) {
  const FakeDataset dataset(64);
  const auto batch =
      make_training_batch(dataset, {.seed = 42, .flip = 0.5}, 1, 0, first_draws(64, 1));
  int num_flipped = 0;
  for (int64_t sample = 0; sample < 64; ++sample) {
    const bool flipped = uniform(word(Stream::kAugmentation, 1, sample, 0)) < 0.5;
    num_flipped += flipped ? 1 : 0;
    const float* row = batch.latents.data() + 12 * sample + 3;  // Elements 3, 4, 5.
    EXPECT_EQ(row[0] - 10.0F * static_cast<float>(sample), flipped ? 5.0F : 3.0F);
    EXPECT_EQ(row[1] - 10.0F * static_cast<float>(sample), 4.0F);
  }
  EXPECT_TRUE(num_flipped > 15 && num_flipped < 49) << num_flipped;
}

TEST(TrainingBatchTest, NoiseOffsetAddsOneNormalAChannel) {
  const FakeDataset dataset(8);
  const auto plain = make_training_batch(dataset, {.seed = 42}, 1, 0, {{5, 2}});
  const auto offset =
      make_training_batch(dataset, {.seed = 42, .noise_offset = 0.25}, 1, 0, {{5, 2}});
  std::vector<float> normals(2);
  PositionRandom(42, Stream::kNoiseOffset, 2, 5).normals(normals);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(offset.noise[i], plain.noise[i] + 0.25F * normals[i / 6]);
  }
}

TEST(TrainingBatchTest, CaptionIsDroppedByWordZeroAndPickedByWordOne) {
  const FakeDataset dataset(200);
  const auto batch =
      make_training_batch(dataset, {.seed = 42, .caption_dropout = 0.4}, 1, 0, first_draws(200, 0));
  for (int64_t sample = 0; sample < 200; ++sample) {
    float expected = 0.0F;
    if (uniform(word(Stream::kCaption, 0, sample, 0)) >= 0.4 && sample % 4 != 0) {
      const uint64_t pick =
          uint64_t{word(Stream::kCaption, 0, sample, 1)} * static_cast<uint64_t>(sample % 4) >> 32;
      expected = static_cast<float>(1 + pick);
    }
    EXPECT_EQ(batch.prompt_embeds[static_cast<size_t>(2 * sample)], expected) << sample;
    EXPECT_EQ(batch.pooled_prompt_embeds[static_cast<size_t>(sample)], -expected) << sample;
  }
}

TEST(TrainingBatchTest, MomentsGetThePosteriorStream) {
  FakeDataset dataset(8);
  dataset.moments = true;
  std::vector<float> normals(12);
  PositionRandom(42, Stream::kPosterior, 3, 6).normals(normals);
  EXPECT_EQ(make_training_batch(dataset, {.seed = 42}, 1, 0, {{6, 3}}).latents, normals);
  PositionRandom(42, Stream::kPosterior, 0xffffff, 6).normals(normals);
  EXPECT_EQ(make_evaluation_batch(dataset, {.seed = 42}, {6}, 2, 4).latents, normals);
}

TEST(TrainingBatchTest, WithoutTextNoneIsRead) {
  const FakeDataset dataset(8);
  const auto batch = make_training_batch(dataset, {.use_text = false}, 1, 0, {{0, 0}});
  EXPECT_EQ(batch.text_length, 0);
  EXPECT_TRUE(batch.prompt_embeds.empty());
  EXPECT_TRUE(batch.pooled_prompt_embeds.empty());
}

TEST(EvaluationBatchTest, PointsAreSpreadOverTheSchedule) {
  const FakeDataset dataset(8);
  const DrawOptions options = {
      .seed = 42, .caption_dropout = 1.0, .flip = 1.0, .noise_offset = 1.0};
  for (int k = 0; k < 4; ++k) {
    const auto batch = make_evaluation_batch(dataset, options, {3, 6}, k, 4);
    for (size_t i = 0; i < 2; ++i) {
      const int64_t sample = i == 0 ? 3 : 6;
      const double u = uniform(word(Stream::kTimestep, 0xffffff, sample, 0));
      EXPECT_EQ(batch.timesteps[i], static_cast<int64_t>(std::floor(1000 * (k + u) / 4)));
      EXPECT_DOUBLE_EQ(batch.uniforms[i], (k + u) / 4);
      std::vector<float> noise(12);
      PositionRandom(42, Stream::kNoise, static_cast<uint64_t>(0xffffff - k),
                     static_cast<uint64_t>(sample))
          .normals(noise);
      EXPECT_TRUE(std::equal(noise.begin(), noise.end(), batch.noise.begin() + 12 * i));
    }
    EXPECT_EQ(batch.latents[0], 30.0F);       // Not flipped.
    EXPECT_EQ(batch.prompt_embeds[0], 1.0F);  // The first caption, not dropped.
    EXPECT_EQ(batch.step, 0);
  }
}

TEST(MakeBatchTest, CropsAreSquaresOfTheirPlaceAndEveryPlaceIsTaken) {
  const FakeDataset dataset(64);  // (2, 2, 3): side 2 leaves two places to the right, one down.
  const auto batch =
      make_training_batch(dataset, {.seed = 42, .crop = 2}, 1, 0, first_draws(64, 1));
  EXPECT_EQ(batch.shape, (LatentShape{2, 2, 2}));
  ASSERT_EQ(batch.latents.size(), 64U * 8U);
  ASSERT_EQ(batch.noise.size(), 64U * 8U);
  std::vector<int64_t> times(2);
  for (int64_t sample = 0; sample < 64; ++sample) {
    const auto left =
        static_cast<int64_t>(uint64_t{word(Stream::kAugmentation, 1, sample, 2)} * 2 >> 32);
    ++times[static_cast<size_t>(left)];
    const float* latent = batch.latents.data() + sample * 8;
    for (int64_t i = 0; i < 8; ++i) {  // Channel, row, column.
      const int64_t element = i / 4 * 6 + i % 4 / 2 * 3 + i % 2 + left;
      EXPECT_EQ(latent[i], static_cast<float>(10 * sample + element));
    }
  }
  EXPECT_GT(times[0], 16);
  EXPECT_GT(times[1], 16);
}

TEST(MakeBatchTest, EvaluationCropsTheMiddleAndMayBorrowNoise) {
  const FakeDataset dataset(10);
  const DrawOptions options{.seed = 42, .crop = 1};
  const auto own = make_evaluation_batch(dataset, options, {3, 6}, 1, 4);
  EXPECT_EQ(own.latents[0], 31.0F);  // Row 0 of 2, column 1 of 3.
  const auto borrowed = make_evaluation_batch(dataset, options, {8, 9}, 1, 4, {3, 6});
  EXPECT_EQ(borrowed.noise, own.noise);
  EXPECT_EQ(borrowed.timesteps, own.timesteps);
  EXPECT_EQ(borrowed.latents[0], 81.0F);
}

class BatchLoaderTest : public testing::Test {
 protected:
  static GlobalBatchSampler make_sampler(const FakeDataset& dataset) {
    return {dataset.classes(), Split(dataset.classes()), {.seed = 42, .global_batch = 8}};
  }
  static BatchLoader::Options make_options() {
    return {.draw = {.seed = 42},
            .first_step = 2,
            .last_step = 4,
            .rank = 1,
            .num_ranks = 2,
            .micro = 2,
            .num_ahead = 2};
  }
};

TEST_F(BatchLoaderTest, GivesTheRanksMicroBatchesInOrder) {
  const FakeDataset dataset(20);
  const auto sampler = make_sampler(dataset);
  BatchLoader loader(dataset, sampler, make_options());
  for (int64_t step = 2; step <= 4; ++step) {
    for (int64_t first = 4; first < 8; first += 2) {
      const LatentBatch batch = loader.next();
      const auto draws = sampler.draws(step, first, 2);
      EXPECT_EQ(batch.step, step);
      EXPECT_EQ(batch.first_position, first);
      ASSERT_EQ(batch.num_samples(), 2);
      EXPECT_EQ(batch.draws[0].sample, draws[0].sample);
      EXPECT_EQ(batch.draws[1].sample, draws[1].sample);
    }
  }
  EXPECT_GE(loader.wait_seconds(), 0.0);
}

TEST_F(BatchLoaderTest, NextAfterTheLastStepIsAnError) {
  const FakeDataset dataset(20);
  const auto sampler = make_sampler(dataset);
  BatchLoader loader(dataset, sampler, make_options());
  for (int i = 0; i < 6; ++i) (void)loader.next();
  EXPECT_THROW((void)loader.next(), InternalError);
}

TEST_F(BatchLoaderTest, WhatTheThreadThrewComesAfterTheBatchesBeforeIt) {
  FakeDataset dataset(20);
  const auto sampler = make_sampler(dataset);
  dataset.bad_sample = sampler.draws(3, 6, 1)[0].sample;
  BatchLoader loader(dataset, sampler, make_options());
  for (int i = 0; i < 3; ++i) EXPECT_NO_THROW((void)loader.next());
  EXPECT_THAT([&] { (void)loader.next(); }, ThrowsMessage<InputError>(HasSubstr("bad")));
  EXPECT_THAT([&] { (void)loader.next(); }, ThrowsMessage<InputError>(HasSubstr("bad")));
}

TEST_F(BatchLoaderTest, MayBeDestroyedAtAnyTime) {
  const FakeDataset dataset(20);
  const auto sampler = make_sampler(dataset);
  for (int i = 0; i < 20; ++i) {
    BatchLoader loader(dataset, sampler, make_options());
    if (i % 2 == 0) (void)loader.next();
  }
}

TEST_F(BatchLoaderTest, MicroThatDoesNotDivideTheShareIsRefused) {
  const FakeDataset dataset(20);
  const auto sampler = make_sampler(dataset);
  auto options = make_options();
  options.micro = 3;
  EXPECT_THROW(BatchLoader(dataset, sampler, options), InternalError);
}
}  // namespace
}  // namespace trireme
