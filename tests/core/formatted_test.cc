#include "core/formatted.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {
TEST(FormattedTest, TextsOfAnyLengthAreWhole) {
  EXPECT_EQ(formatted("%s", ""), "");
  EXPECT_EQ(formatted("%05d|%.3g|%s", 42, 1234.5, "x"), "00042|1.23e+03|x");
  const std::string long_text(5000, 'a');
  EXPECT_EQ(formatted("<%s>", long_text.c_str()), "<" + long_text + ">");
}
}  // namespace
}  // namespace trireme
