#include "core/formatted.h"

#include <limits>

#include <gtest/gtest.h>

namespace trireme {
namespace {
TEST(FormattedTest, TextsOfAnyLengthAreWhole) {
  EXPECT_EQ(formatted("%s", ""), "");
  EXPECT_EQ(formatted("%05d|%.3g|%s", 42, 1234.5, "x"), "00042|1.23e+03|x");
  const std::string long_text(5000, 'a');
  EXPECT_EQ(formatted("<%s>", long_text.c_str()), "<" + long_text + ">");
}

TEST(FormattedTest, NansHaveNoSign) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(formatted("%g %g", unsigned_nan(-nan), unsigned_nan(nan)), "nan nan");
  EXPECT_EQ(formatted("%g %g", unsigned_nan(-2.5), unsigned_nan(-1 / 0.0)), "-2.5 -inf");
}
}  // namespace
}  // namespace trireme
