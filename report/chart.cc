#include "report/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/html_text.h"
#include "report/svg.h"
#include "report/ticks.h"

namespace trireme {
namespace {
using internal::coordinate;
using Mark = ChartSeries::Mark;

struct Extent {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double value, ChartAxis::Scale scale) {
    if (!std::isfinite(value) || (scale != ChartAxis::Scale::kLinear && value <= 0)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  [[nodiscard]] bool empty() const { return low > high; }
};

// The frame in drawing units, and the axes that fill it.
struct Layout {
  double left = 0, top = 0, width = 0, height = 0;
  AxisLayout x, y;
  [[nodiscard]] double px(double value) const { return x.place(value) * width; }
  [[nodiscard]] double py(double value) const { return (1.0 - y.place(value)) * height; }
};

void include_y(const ChartSeries& series, ChartAxis::Scale scale, Extent& extent) {
  for (const double value : series.y) extent.include(value, scale);
  for (const double value : series.low) extent.include(value, scale);
  for (const double value : series.high) extent.include(value, scale);
}

// Faint lines and bands do not stretch the axis where there is anything else.
Extent extent_of_y(const Chart& chart) {
  Extent extent;
  for (const auto& series : chart.series) {
    if (series.mark != Mark::kFaint) include_y(series, chart.y.scale, extent);
  }
  if (extent.empty()) {
    for (const auto& series : chart.series) include_y(series, chart.y.scale, extent);
  }
  for (const auto& rule : chart.rules) {
    if (rule.along == ChartRule::Along::kY) extent.include(rule.at, chart.y.scale);
  }
  return extent;
}

Extent extent_of_x(const Chart& chart) {
  Extent extent;
  for (const auto& series : chart.series) {
    for (const double value : series.x) extent.include(value, chart.x.scale);
  }
  return extent;
}

Layout lay_out(const Chart& chart, double width, double height, const Extent& x_extent,
               const Extent& y_extent) {
  Layout layout;
  ChartAxis x = chart.x;
  // Time and steps fill the width.
  if (x.scale == ChartAxis::Scale::kLinear && x_extent.high > x_extent.low) {
    if (!x.low) x.low = x_extent.low;
    if (!x.high) x.high = x_extent.high;
  }
  layout.y = lay_out_axis(chart.y, y_extent.low, y_extent.high, 5);
  layout.x = lay_out_axis(x, x_extent.low, x_extent.high,
                          width > 600 || x.scale == ChartAxis::Scale::kLog2 ? 8 : 5);
  size_t widest = 0;
  for (const auto& tick : layout.y.ticks)
    widest = std::max(widest, internal::num_characters(tick.text));
  layout.left = 12 + 8.0 * static_cast<double>(widest);
  layout.top = chart.y.label.empty() ? 10 : 24;
  layout.width = width - layout.left - 18;
  layout.height = height - layout.top - 38;
  return layout;
}

std::string draw_axes(const Chart& chart, const Layout& layout) {
  std::string svg;
  const double right = layout.left + layout.width;
  const double bottom = layout.top + layout.height;
  for (const auto& tick : layout.y.ticks) {
    const double y = layout.top + layout.py(tick.value);
    svg += internal::line_between(layout.left, y, right, y, "gridline");
    svg += internal::text_at(layout.left - 7, y + 4, "end", tick.text);
  }
  svg += internal::line_between(layout.left, bottom, right, bottom, "axis");
  for (const auto& tick : layout.x.ticks) {
    const double x = layout.left + layout.px(tick.value);
    svg += internal::line_between(x, bottom, x, bottom + 4, "axis");
    // The outermost text stays inside the drawing.
    const double half = 4.5 * static_cast<double>(internal::num_characters(tick.text));
    const bool at_end = x + half > right + 16;
    svg += internal::text_at(at_end ? right + 16 : x, bottom + 17, at_end ? "end" : "middle",
                             tick.text);
  }
  if (!chart.y.label.empty())
    svg += internal::text_at(layout.left, 13, "start", chart.y.label, "label");
  if (!chart.x.label.empty())
    svg += internal::text_at(right, bottom + 33, "end", chart.x.label, "label");
  return svg;
}

// The path through y (or another column of the series), broken where it cannot be shown.
std::string path_of(const ChartSeries& series, const std::vector<double>& column,
                    const Layout& layout) {
  std::string path;
  bool pen_down = false;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!layout.x.can_show(series.x[i]) || !layout.y.can_show(column[i])) {
      pen_down = false;
      continue;
    }
    path += pen_down ? "L" : "M";
    path += coordinate(layout.px(series.x[i])) + " " + coordinate(layout.py(column[i]));
    pen_down = true;
  }
  return path;
}

// One closed outline for each stretch in which both edges can be shown.
std::string band_of(const ChartSeries& series, const Layout& layout) {
  std::string path;
  const auto shown = [&](size_t i) {
    return layout.x.can_show(series.x[i]) && layout.y.can_show(series.low[i]) &&
           layout.y.can_show(series.high[i]);
  };
  for (size_t first = 0; first < series.x.size();) {
    size_t last = first;
    while (last < series.x.size() && shown(last)) ++last;
    for (size_t i = first; i < last; ++i) {
      path += (i == first ? "M" : "L") + coordinate(layout.px(series.x[i])) + " " +
              coordinate(layout.py(series.high[i]));
    }
    for (size_t i = last; i > first; --i) {
      path += "L" + coordinate(layout.px(series.x[i - 1])) + " " +
              coordinate(layout.py(series.low[i - 1]));
    }
    if (last > first) path += "Z";
    first = last + 1;
  }
  return path;
}

std::string draw_lines(const ChartSeries& series, const Layout& layout) {
  const bool has_line = series.mark != Mark::kPoints;
  std::string svg = "<g class=\"" + internal::colour_class(series.colour) + "\">";
  if (has_line && !series.low.empty())
    svg += "<path class=\"band\" d=\"" + band_of(series, layout) + "\"/>";
  if (has_line) {
    const char* style = series.mark == Mark::kDashed  ? "line dashed"
                        : series.mark == Mark::kFaint ? "line faint"
                                                      : "line";
    svg += "<path class=\"" + std::string(style) + "\" d=\"" + path_of(series, series.y, layout) +
           "\"/>";
  }
  return svg + "</g>";
}

int64_t num_shown(const ChartSeries& series, const Layout& layout) {
  int64_t count = 0;
  for (size_t i = 0; i < series.x.size(); ++i)
    count += layout.x.can_show(series.x[i]) && layout.y.can_show(series.y[i]) ? 1 : 0;
  return count;
}

// Points carry their values as a tooltip. Outside the clipped frame, so that those on its edge are
// whole.
std::string draw_points(const Chart& chart, const ChartSeries& series, const Layout& layout) {
  const bool is_single = num_shown(series, layout) == 1;  // No line would show it.
  if (series.mark != Mark::kPoints && series.mark != Mark::kLineAndPoints && !is_single) return {};
  std::string svg = "<g class=\"" + internal::colour_class(series.colour) + "\">";
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!layout.x.can_show(series.x[i]) || !layout.y.can_show(series.y[i])) continue;
    const double place = layout.y.place(series.y[i]);
    if (place < -0.001 || place > 1.001) continue;
    const double x = layout.left + layout.px(series.x[i]);
    const double y = layout.top + layout.py(series.y[i]);
    if (series.mark == Mark::kPoints && !series.low.empty() && layout.y.can_show(series.low[i]) &&
        layout.y.can_show(series.high[i])) {
      svg += internal::line_between(x, layout.top + layout.py(series.low[i]), x,
                                    layout.top + layout.py(series.high[i]), "whisker");
    }
    svg += "<circle class=\"point\" cx=\"" + coordinate(x) + "\" cy=\"" + coordinate(y) +
           "\" r=\"3\"><title>" +
           escape_html((series.name.empty() ? "" : series.name + ", ") + chart.x.label + " " +
                       format_value(series.x[i], chart.x.format) + ": " +
                       format_value(series.y[i], chart.y.format)) +
           "</title></circle>";
  }
  return svg + "</g>";
}

std::string draw_rules(const Chart& chart, const Layout& layout) {
  std::string svg;
  for (const auto& rule : chart.rules) {
    const bool is_level = rule.along == ChartRule::Along::kY;
    const AxisLayout& axis = is_level ? layout.y : layout.x;
    if (!axis.can_show(rule.at)) continue;
    const double place = axis.place(rule.at);
    if (place < 0 || place > 1) continue;
    const double right = layout.left + layout.width;
    if (is_level) {
      const double y = layout.top + layout.py(rule.at);
      svg += internal::line_between(layout.left, y, right, y, "rule");
      svg += internal::text_at(right - 3, y - 5, "end", rule.label, "label");
    } else {
      const double x = layout.left + layout.px(rule.at);
      svg += internal::line_between(x, layout.top, x, layout.top + layout.height, "rule");
      svg += internal::text_at(place > 0.7 ? x - 5 : x + 5, layout.top + 12,
                               place > 0.7 ? "end" : "start", rule.label, "label");
    }
  }
  return svg;
}

std::string draw(const Chart& chart, double width, double height, const char* style) {
  const Extent x_extent = extent_of_x(chart);
  const Extent y_extent = extent_of_y(chart);
  if (x_extent.empty() || y_extent.empty()) return "<p class=\"empty\">No values.</p>";
  const Layout layout = lay_out(chart, width, height, x_extent, y_extent);
  std::string svg = "<svg class=\"" + std::string(style) + "\" role=\"img\" viewBox=\"0 0 " +
                    coordinate(width) + " " + coordinate(height) + "\" aria-label=\"" +
                    escape_html(chart.title) + "\">" + draw_axes(chart, layout);
  // A nested drawing clips without an id that would have to be unique on the page.
  svg += "<svg x=\"" + coordinate(layout.left) + "\" y=\"" + coordinate(layout.top) +
         "\" width=\"" + coordinate(layout.width) + "\" height=\"" + coordinate(layout.height) +
         "\">";
  for (const auto& series : chart.series) svg += draw_lines(series, layout);
  svg += "</svg>" + draw_rules(chart, layout);
  for (const auto& series : chart.series) svg += draw_points(chart, series, layout);
  return svg + "</svg>";
}

std::string legend_of(const Chart& chart) {
  std::string legend;
  for (const auto& series : chart.series) {
    if (series.name.empty()) continue;
    const auto last =
        std::find_if(series.y.rbegin(), series.y.rend(), [](double y) { return std::isfinite(y); });
    const char* mark = series.mark == Mark::kPoints   ? "dot"
                       : series.mark == Mark::kDashed ? "dashed"
                                                      : "line";
    const bool has_end = last != series.y.rend() && series.mark != Mark::kPoints;
    legend += internal::legend_entry(mark, internal::colour_class(series.colour), series.name,
                                     has_end ? format_value(*last, chart.y.format) : "");
  }
  return legend;
}
}  // namespace

std::string render_chart(const Chart& chart) {
  std::string body;
  if (chart.size == Chart::Size::kNormal) {
    body = draw(chart, 480, 270, "");
    return internal::figure(chart.title, chart.note, legend_of(chart), body);
  }
  // Drawn twice, because text would shrink with a wide drawing on a phone.
  body = draw(chart, 980, 300, "on-wide") + draw(chart, 480, 270, "on-narrow");
  return internal::figure(chart.title, chart.note, legend_of(chart), body, "wide");
}

ChartSeries thin_out(const ChartSeries& series, size_t num_points) {
  if (series.x.size() <= num_points || num_points == 0) return series;
  ChartSeries thin = series;
  thin.x.clear();
  thin.y.clear();
  thin.low.clear();
  thin.high.clear();
  const size_t count = series.x.size();
  for (size_t k = 0; k < num_points; ++k) {
    const size_t first = k * count / num_points;
    const size_t last = (k + 1) * count / num_points;
    double sum_x = 0, sum_y = 0, num_finite = 0;
    Extent extent;
    for (size_t i = first; i < last; ++i) {
      sum_x += series.x[i];
      if (!std::isfinite(series.y[i])) continue;
      sum_y += series.y[i];
      num_finite += 1;
      extent.include(series.low.empty() ? series.y[i] : series.low[i], ChartAxis::Scale::kLinear);
      extent.include(series.high.empty() ? series.y[i] : series.high[i], ChartAxis::Scale::kLinear);
    }
    const double nan = std::numeric_limits<double>::quiet_NaN();
    thin.add(sum_x / static_cast<double>(last - first), num_finite > 0 ? sum_y / num_finite : nan);
    thin.low.push_back(extent.empty() ? nan : extent.low);
    thin.high.push_back(extent.empty() ? nan : extent.high);
  }
  return thin;
}

ChartSeries smooth(const ChartSeries& series, int64_t reach) {
  ChartSeries result = series;
  const auto count = static_cast<int64_t>(series.y.size());
  std::vector<double> sums(static_cast<size_t>(count) + 1, 0.0);
  std::vector<int64_t> counts(static_cast<size_t>(count) + 1, 0);
  for (size_t i = 0; i < series.y.size(); ++i) {
    const bool finite = std::isfinite(series.y[i]);
    sums[i + 1] = sums[i] + (finite ? series.y[i] : 0.0);
    counts[i + 1] = counts[i] + (finite ? 1 : 0);
  }
  for (int64_t i = 0; i < count; ++i) {
    const auto first = static_cast<size_t>(std::max<int64_t>(0, i - reach));
    const auto last = static_cast<size_t>(std::min(count, i + reach + 1));
    const auto at = static_cast<size_t>(i);
    const int64_t num = counts[last] - counts[first];
    result.y[at] = num > 0 && std::isfinite(series.y[at])
                       ? (sums[last] - sums[first]) / static_cast<double>(num)
                       : std::numeric_limits<double>::quiet_NaN();
  }
  result.low.clear();
  result.high.clear();
  return result;
}
}  // namespace trireme
