#include "core/philox.h"

#include <cmath>
#include <numbers>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {
using testing::ElementsAre;

TEST(PhiloxTest, ZeroKeyAndCounterGiveTheKnownAnswer) {
  EXPECT_THAT(philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U));
}

// From the known-answer file of Salmon et al.'s Random123.
TEST(PhiloxTest, AllOnesAndDigitsOfPiGiveTheKnownAnswers) {
  EXPECT_THAT(
      philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
      ElementsAre(0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU));
  EXPECT_THAT(
      philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U));
}

TEST(PositionRandomTest, CounterHoldsBlockStreamEpochAndSample) {
  const uint64_t seed = 0x1122334455667788;
  const uint64_t sample = (uint64_t{0xab} << 32) + 0x9abcdef0;
  EXPECT_EQ(PositionRandom(seed, Stream::kCaption, 0x123456, sample).words(3),
            philox4x32({3, 4, 0xab123456, 0x9abcdef0}, {0x55667788, 0x11223344}));
}

TEST(PositionRandomTest, NoiseOfSampleSevenBeginsAsDocumented) {
  std::vector<float> noise(4);
  PositionRandom(42, Stream::kNoise, 0, 7).normals(noise);
  EXPECT_THAT(noise, ElementsAre(-0.74448484F, 0.41399145F, -0.46544737F, 0.44521943F));
}

TEST(PositionRandomTest, TimestepOfSampleSevenIsAsDocumented) {
  const uint32_t word = PositionRandom(42, Stream::kTimestep, 0, 7).words()[0];
  EXPECT_EQ(uint64_t{word} * 1000 >> 32, 768U);
}

TEST(PositionRandomTest, NormalsAreBoxMullerOfTheWordsRoundedToFloat) {
  std::vector<float> normals(40000);
  const PositionRandom random(7, Stream::kPosterior, 3, 11);
  random.normals(normals);
  int num_different = 0;
  for (uint32_t i = 0; i < normals.size(); i += 2) {
    const auto words = random.words(i / 4);
    const double radius = std::sqrt(-2.0 * std::log(uniform(words[i % 4])));
    const double angle = 2.0 * std::numbers::pi * uniform(words[i % 4 + 1]);
    num_different += normals[i] != static_cast<float>(radius * std::cos(angle)) ? 1 : 0;
    num_different += normals[i + 1] != static_cast<float>(radius * std::sin(angle)) ? 1 : 0;
  }
  EXPECT_EQ(num_different, 0);  // A tie of rounding would differ once in 10^8.
}

TEST(PositionRandomTest, ShorterDrawsAreBeginningsOfLongerOnes) {
  const PositionRandom random(1, Stream::kNoise, 0, 0);
  std::vector<float> whole(200);
  random.normals(whole);
  for (const size_t size : {0U, 1U, 3U, 63U, 64U, 65U, 199U}) {
    std::vector<float> part(size);
    random.normals(part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << size << " normals";
  }
}

TEST(PositionRandomTest, NormalsHaveMeanZeroAndVarianceOne) {
  std::vector<float> normals(1 << 20);
  PositionRandom(5, Stream::kNoise, 0, 0).normals(normals);
  double sum = 0.0;
  double squares = 0.0;
  for (const float value : normals) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const double count = static_cast<double>(normals.size());
  EXPECT_NEAR(sum / count, 0.0, 5.0 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1.0, 5.0 * std::sqrt(2.0 / count));
}

TEST(UniformTest, LiesStrictlyBetweenZeroAndOne) {
  EXPECT_EQ(uniform(0), 0x1p-33);
  EXPECT_EQ(uniform(0xffffffff), 1.0 - 0x1p-33);
}
}  // namespace
}  // namespace trireme
