#include "report/svg.h"

#include <algorithm>
#include <cmath>

#include "core/formatted.h"
#include "report/html_text.h"

namespace trireme::internal {

std::string coordinate(double value) {
  std::string result = formatted("%.1f", std::clamp(value, -1e5, 1e5));
  if (result.ends_with(".0")) result.resize(result.size() - 2);
  return result == "-0" ? "0" : result;
}

std::string colour_class(const ChartColour& colour) {
  const int index = ((colour.index % 8) + 8) % 8;
  switch (colour.palette) {
    case ChartColour::Palette::kHues:
      return "h" + std::to_string(index);
    case ChartColour::Palette::kRamp:
      return "r" + std::to_string(index);
    case ChartColour::Palette::kMuted:
      return "muted";
  }
  return {};
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view text,
                    std::string_view style) {
  return "<text class=\"" + std::string(style) + "\" x=\"" + coordinate(x) + "\" y=\"" +
         coordinate(y) + "\" text-anchor=\"" + std::string(anchor) + "\">" + escape_html(text) +
         "</text>";
}

std::string line_between(double x1, double y1, double x2, double y2, std::string_view style) {
  return "<line class=\"" + std::string(style) + "\" x1=\"" + coordinate(x1) + "\" y1=\"" +
         coordinate(y1) + "\" x2=\"" + coordinate(x2) + "\" y2=\"" + coordinate(y2) + "\"/>";
}

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string figure(const std::string& title, const std::string& note, const std::string& legend,
                   const std::string& body, std::string_view style) {
  std::string html = "<figure class=\"" + std::string(style) + "\"><figcaption><h3>" +
                     escape_html(title) + "</h3>";
  if (!note.empty()) html += "<p>" + escape_html(note) + "</p>";
  if (!legend.empty()) html += "<ul class=\"legend\">" + legend + "</ul>";
  return html + "</figcaption>" + body + "</figure>\n";
}

std::string legend_entry(std::string_view mark, const std::string& colour, std::string_view name,
                         std::string_view value) {
  std::string html = "<li class=\"" + colour + "\"><i class=\"" + std::string(mark) +
                     "\"></i><span>" + escape_html(name) + "</span>";
  if (!value.empty()) html += " <b>" + escape_html(value) + "</b>";
  return html + "</li>";
}
}  // namespace trireme::internal
