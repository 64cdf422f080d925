#include "core/half.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace trireme {
namespace {

// The value of a half by its definition.
double value_of(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, EveryHalfBecomesItsValue) {
  std::vector<uint16_t> halves(65536);
  std::iota(halves.begin(), halves.end(), uint16_t{0});
  std::vector<float> floats(halves.size());
  half_to_float(halves, floats);
  for (const uint16_t half : halves) {
    const float value = floats[half];
    if ((half & 0x7c00) != 0x7c00) {
      ASSERT_EQ(value, value_of(half)) << half;
      ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0) << half;
    } else if ((half & 0x3ff) == 0) {
      ASSERT_TRUE(std::isinf(value)) << half;
    } else {
      ASSERT_TRUE(std::isnan(value)) << half;
    }
  }
}

TEST(HalfTest, SizesThatAreNoMultipleOfABlockAreConvertedWhole) {
  const std::vector<uint16_t> halves(131, 0x3c00);
  std::vector<float> floats(halves.size());
  half_to_float(halves, floats);
  EXPECT_EQ(floats, std::vector<float>(131, 1.0F));
}

TEST(AllFiniteTest, FindsOneBadValueAnywhere) {
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const size_t at : {0U, 63U, 64U, 99U}) {
      std::vector<float> values(100, std::numeric_limits<float>::max());
      EXPECT_TRUE(all_finite(values));
      values[at] = bad;
      EXPECT_FALSE(all_finite(values)) << bad << " at " << at;
    }
  }
}
}  // namespace
}  // namespace trireme
