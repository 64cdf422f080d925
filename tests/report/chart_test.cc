#include "report/chart.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/ticks.h"

namespace trireme {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> texts(const AxisLayout& layout) {
  std::vector<std::string> result;
  for (const auto& tick : layout.ticks) result.push_back(tick.text);
  return result;
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(TicksTest, AreRoundAndWithinTheAxis) {
  const AxisLayout layout = lay_out_axis({}, 0.03, 0.97, 5);
  EXPECT_THAT(texts(layout), ElementsAre("0", "0.2", "0.4", "0.6", "0.8", "1"));
  EXPECT_DOUBLE_EQ(layout.place(layout.low), 0.0);
  EXPECT_DOUBLE_EQ(layout.place(layout.high), 1.0);
}

TEST(TicksTest, AConstantGetsAnAxisAroundIt) {
  const AxisLayout layout = lay_out_axis({}, 1e-4, 1e-4, 5);
  EXPECT_LT(layout.low, 1e-4);
  EXPECT_GT(layout.high, 1e-4);
  EXPECT_FALSE(layout.ticks.empty());
}

TEST(TicksTest, NothingButZeroStandsOnTheGround) {
  EXPECT_THAT(texts(lay_out_axis({}, 0, 0, 5)), ElementsAre("0", "0.2", "0.4", "0.6", "0.8", "1"));
}

TEST(TicksTest, AShortLogarithmicAxisHasEvenTicks) {
  const ChartAxis axis{.scale = ChartAxis::Scale::kLog10};
  EXPECT_THAT(texts(lay_out_axis(axis, 115, 125, 5)),
              ElementsAre("115", "117.5", "120", "122.5", "125"));
}

TEST(TicksTest, LessThanAnOctaveHasTicksToo) {
  const ChartAxis axis{.scale = ChartAxis::Scale::kLog2};
  EXPECT_GE(lay_out_axis(axis, 17, 30, 5).ticks.size(), 2U);
}

TEST(TicksTest, CountsHaveWholeTicks) {
  const ChartAxis axis{.format = ChartAxis::Format::kCount};
  EXPECT_THAT(texts(lay_out_axis(axis, 0, 1, 8)), ElementsAre("0", "1"));
  EXPECT_THAT(texts(lay_out_axis(axis, 0, 12, 5)), ElementsAre("0", "5", "10"));
  EXPECT_THAT(texts(lay_out_axis(axis, 1, 1, 8)), ElementsAre("0", "1", "2"));
  EXPECT_THAT(texts(lay_out_axis(axis, 0, 0, 8)), ElementsAre("0", "1"));
}

TEST(TicksTest, LogarithmicAxesTickAtPowers) {
  ChartAxis axis{.scale = ChartAxis::Scale::kLog2};
  EXPECT_THAT(texts(lay_out_axis(axis, 16, 256, 8)), ElementsAre("16", "32", "64", "128", "256"));
  axis.scale = ChartAxis::Scale::kLog10;
  const AxisLayout layout = lay_out_axis(axis, 1, 1e6, 8);
  EXPECT_THAT(texts(layout),
              ElementsAre("1", "10", "100", "1,000", "10,000", "100,000", "1,000,000"));
  EXPECT_FALSE(layout.can_show(0.0));
  EXPECT_NEAR(layout.place(1e3), 0.5, 1e-9);
}

TEST(TicksTest, FiguresReadAsPeopleWriteThem) {
  EXPECT_EQ(format_figure(0.45211), "0.4521");
  EXPECT_EQ(format_figure(4e-4), "4e-4");
  EXPECT_EQ(format_figure(-1.25e-5), "-1.25e-5");
  EXPECT_EQ(format_figure(1234567), "1,234,567");
  EXPECT_EQ(format_figure(-1234), "-1,234");
  EXPECT_EQ(format_figure(kNan), "–");
  EXPECT_EQ(format_seconds(0.0123), "12.3 ms");
  EXPECT_EQ(format_seconds(250), "4m 10s");
  EXPECT_EQ(format_seconds(7500), "2h 05m");
  EXPECT_EQ(format_seconds(90000), "1d 01h");
}

TEST(ChartTest, TextIsEscaped) {
  const std::string svg = render_chart({.title = "<script>alert('x')</script>",
                                        .x = {.label = "\"a\" & b"},
                                        .series = {{.name = "<i>", .x = {0, 1}, .y = {1, 2}}}});
  EXPECT_THAT(svg, Not(HasSubstr("<script>")));
  EXPECT_THAT(svg, Not(HasSubstr("<i>")));
  EXPECT_THAT(svg, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(svg, HasSubstr("&quot;a&quot; &amp; b"));
}

TEST(ChartTest, WhatIsNotFiniteBreaksTheLine) {
  const std::string svg = render_chart(
      {.title = "t", .series = {{.name = "s", .x = {0, 1, 2, 3, 4}, .y = {1, 2, kNan, 2, 1}}}});
  const size_t from = svg.find("<path class=\"line\"");
  const std::string path = svg.substr(from, svg.find("/>", from) - from);
  EXPECT_EQ(count_of(path, "M"), 2U);
  EXPECT_EQ(count_of(path, "L"), 2U);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(ChartTest, ALineOfOneValueIsAPoint) {
  const std::string one = render_chart({.title = "t", .series = {{.x = {1}, .y = {2}}}});
  EXPECT_EQ(count_of(one, "<circle"), 1U);
  const std::string two = render_chart({.title = "t", .series = {{.x = {1, 2}, .y = {2, 3}}}});
  EXPECT_EQ(count_of(two, "<circle"), 0U);
}

TEST(ChartTest, AChartWithoutValuesSaysSo) {
  EXPECT_THAT(render_chart({.title = "t"}), HasSubstr("No values."));
  EXPECT_THAT(render_chart({.title = "t", .series = {{.name = "s", .x = {1}, .y = {kNan}}}}),
              HasSubstr("No values."));
}

TEST(ChartTest, ThinningKeepsTheExtremesAsABand) {
  ChartSeries series{.name = "s"};
  for (int i = 0; i < 1000; ++i) {
    series.add(i, i == 777 ? 50.0 : 1.0);
  }
  const ChartSeries thin = thin_out(series, 100);
  ASSERT_EQ(thin.x.size(), 100U);
  EXPECT_DOUBLE_EQ(thin.x.front(), 4.5);  // Mean of 0 … 9.
  EXPECT_DOUBLE_EQ(thin.high[77], 50.0);
  EXPECT_DOUBLE_EQ(thin.y[77], 5.9);  // (9 × 1 + 50) / 10
  EXPECT_EQ(thin_out(thin, 200).x.size(), 100U);
}

TEST(ChartTest, SmoothingIsTheMeanOfTheNeighbours) {
  const ChartSeries smoothed =
      smooth({.name = "s", .x = {0, 1, 2, 3, 4}, .y = {1, 2, 3, kNan, 5}}, 1);
  EXPECT_DOUBLE_EQ(smoothed.y[0], 1.5);
  EXPECT_DOUBLE_EQ(smoothed.y[1], 2.0);
  EXPECT_DOUBLE_EQ(smoothed.y[2], 2.5);
  EXPECT_TRUE(std::isnan(smoothed.y[3]));
}

TEST(BarChartTest, PartsFillTheWidthInProportion) {
  const std::string svg = render_bars(
      {.title = "t", .parts = {"a", "b"}, .bars = {{.name = "<rank>", .values = {1, 3}}}});
  EXPECT_THAT(svg, HasSubstr("width=\"118\""));  // Of 472.
  EXPECT_THAT(svg, HasSubstr("width=\"354\""));
  EXPECT_THAT(svg, HasSubstr("&lt;rank&gt;"));
}
}  // namespace
}  // namespace trireme
