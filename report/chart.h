#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace trireme {

// Charts as inline SVG: no scripts, no network, colours from the page's style sheet (html_page.h),
// so that one drawing serves light and dark. Plain data in, text out; local, thread-safe.

// Where a colour comes from: one of eight hues that are told apart, or a place in an ordered ramp.
struct ChartColour {
  enum class Palette { kHues, kRamp, kMuted } palette = Palette::kHues;
  int index = 0;  // Of kHues and kRamp, taken modulo 8.
};

// x and y are of equal length. A y that is not finite breaks the line.
struct ChartSeries {
  std::string name = {};  // In the legend, with the last value; empty: not listed.
  std::vector<double> x = {};
  std::vector<double> y = {};
  // Either empty, or as long as y: a band around the line, or whiskers on points.
  std::vector<double> low = {};
  std::vector<double> high = {};
  // kFaint: a thin line behind the others that does not stretch the axes.
  enum class Mark { kLine, kDashed, kFaint, kPoints, kLineAndPoints } mark = Mark::kLine;
  ChartColour colour = {};

  void add(double at, double value) {
    x.push_back(at);
    y.push_back(value);
  }
};

struct ChartAxis {
  std::string label = {};
  enum class Scale { kLinear, kLog2, kLog10 } scale = Scale::kLinear;
  std::optional<double> low = {};  // Absent: from the data, rounded outwards.
  std::optional<double> high = {};
  // kCount: whole numbers, so ticks are whole too.
  enum class Format { kNumber, kCount, kPercent, kSeconds } format = Format::kNumber;
};

// A straight line across the chart, with a label at its end.
struct ChartRule {
  enum class Along { kX, kY } along = Along::kY;  // The axis that `at` is a value of.
  double at = 0.0;
  std::string label = {};
};

struct Chart {
  std::string title = {};
  std::string note = {};  // One sentence under the title: what is drawn, and how it was smoothed.
  ChartAxis x = {};
  ChartAxis y = {};
  std::vector<ChartSeries> series = {};
  std::vector<ChartRule> rules = {};
  enum class Size { kNormal, kWide } size = Size::kNormal;
};

// <figure> with title, legend and <svg>. A chart without a finite point says so in its place. All
// text is escaped.
[[nodiscard]] std::string render_chart(const Chart& chart);

// Horizontal bars of stacked parts, say seconds by phase, one bar a rank count. Parts are equal in
// number in all bars.
struct BarChart {
  std::string title = {};
  std::string note = {};
  std::vector<std::string> parts = {};  // Names, in the order of stacking; colours by index.
  struct Bar {
    std::string name = {};
    std::vector<double> values = {};  // One a part; not negative.
    std::string total = {};           // Written at the end of the bar; empty: the sum.
  };
  std::vector<Bar> bars = {};
  ChartAxis x = {};  // Linear; begins at 0.
};
[[nodiscard]] std::string render_bars(const BarChart& chart);

// At most about `num_points` points of `series`: means over equal stretches of x, with the smallest
// and largest y as the band. Fewer points come back as they are.
[[nodiscard]] ChartSeries thin_out(const ChartSeries& series, size_t num_points);
// y replaced by its mean over the 2 `reach` + 1 points around each (fewer at the ends, and skipping
// what is not finite).
[[nodiscard]] ChartSeries smooth(const ChartSeries& series, int64_t reach);
}  // namespace trireme
