#include <algorithm>
#include <numeric>

#include "report/chart.h"
#include "report/html_text.h"
#include "report/svg.h"
#include "report/ticks.h"

namespace trireme {
namespace {
constexpr double kWidth = 480;
constexpr double kBarHeight = 18;
constexpr double kRowHeight = 42;  // The name stands above its bar, so that long names fit.

// The ninth part and later ones are "and the rest".
std::string hue_of(size_t part) { return part < 8 ? "h" + std::to_string(part) : "rest"; }

double sum_of(const BarChart::Bar& bar) {
  return std::accumulate(bar.values.begin(), bar.values.end(), 0.0);
}

std::string draw_bar(const BarChart& chart, const BarChart::Bar& bar, const AxisLayout& axis,
                     double top) {
  const double width = kWidth - 8;
  const std::string total =
      bar.total.empty() ? format_value(sum_of(bar), chart.x.format) : bar.total;
  std::string svg = internal::text_at(4, top + 12, "start", bar.name, "name") +
                    internal::text_at(4 + width, top + 12, "end", total, "tick");
  double begin = 0.0;
  for (size_t part = 0; part < bar.values.size(); ++part) {
    const double end = begin + std::max(0.0, bar.values[part]);
    const double x = 4 + axis.place(begin) * width;
    const double extent = (axis.place(end) - axis.place(begin)) * width;
    begin = end;
    if (extent < 0.05) continue;
    svg += "<rect class=\"bar " + hue_of(part) + "\" x=\"" + internal::coordinate(x) + "\" y=\"" +
           internal::coordinate(top + 18) + "\" width=\"" + internal::coordinate(extent) +
           "\" height=\"" + internal::coordinate(kBarHeight) + "\"><title>" +
           escape_html((part < chart.parts.size() ? chart.parts[part] : "") + ": " +
                       format_value(bar.values[part], chart.x.format)) +
           "</title></rect>";
  }
  return svg;
}
}  // namespace

std::string render_bars(const BarChart& chart) {
  double high = 0.0;
  for (const auto& bar : chart.bars) high = std::max(high, sum_of(bar));
  std::string legend;
  for (size_t part = 0; part < chart.parts.size(); ++part) {
    legend += internal::legend_entry("block", hue_of(part), chart.parts[part], "");
  }
  std::string body = "<p class=\"empty\">No values.</p>";
  if (high > 0.0) {
    ChartAxis x = chart.x;
    x.low = 0.0;
    if (!x.high) x.high = high;
    const AxisLayout axis = lay_out_axis(x, 0.0, high, 5);
    const double height = kRowHeight * static_cast<double>(chart.bars.size());
    body = "<svg role=\"img\" viewBox=\"0 0 480 " + internal::coordinate(height) +
           "\" aria-label=\"" + escape_html(chart.title) + "\">";
    for (size_t i = 0; i < chart.bars.size(); ++i) {
      body += draw_bar(chart, chart.bars[i], axis, kRowHeight * static_cast<double>(i));
    }
    body += "</svg>";
  }
  return internal::figure(chart.title, chart.note, legend, body);
}
}  // namespace trireme
