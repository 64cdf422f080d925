#include "core/vector_math.h"

#include <cmath>
#include <limits>
#include <numbers>

#include <gtest/gtest.h>

#include "core/philox.h"

namespace trireme {
namespace {
constexpr double kUlp = std::numeric_limits<double>::epsilon();

TEST(VectorMathTest, LogIsWithinAnUlpOfTheLibrarys) {
  for (uint32_t word = 0; word < 0xfffe0000; word += 65521) {
    const double x = uniform(word);
    EXPECT_NEAR(vector_math::log(x) / std::log(x), 1.0, 2 * kUlp) << x;
  }
  EXPECT_EQ(vector_math::log(1.0), 0.0);
  EXPECT_NEAR(vector_math::log(1.0 - 0x1p-33) / std::log1p(-0x1p-33), 1.0, 2 * kUlp);
}

TEST(VectorMathTest, SineAndCosineFollowTheWholeTurn) {
  for (uint32_t word = 0; word < 0xfffe0000; word += 65521) {
    const auto [sine, cosine] = vector_math::sin_cos_turn(word);
    const double angle = 2.0 * std::numbers::pi * uniform(word);
    ASSERT_NEAR(sine, std::sin(angle), 8 * kUlp) << word;
    ASSERT_NEAR(cosine, std::cos(angle), 8 * kUlp) << word;
  }
}

TEST(VectorMathTest, ExpIsWithinTwoUlpsOfTheLibrarys) {
  for (double x = -30.0; x <= 30.0; x += 0.001) {
    ASSERT_NEAR(vector_math::exp(x) / std::exp(x), 1.0, 3 * kUlp) << x;
  }
  EXPECT_EQ(vector_math::exp(0.0), 1.0);
}
}  // namespace
}  // namespace trireme
