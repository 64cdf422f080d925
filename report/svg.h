#pragma once
#include <string>
#include <string_view>

#include "report/chart.h"

// Pieces that the drawings of this folder share.
namespace trireme::internal {

// A length of the drawing: one decimal, no trailing zero.
[[nodiscard]] std::string coordinate(double value);
// The class that sets the colour (html_style.h).
[[nodiscard]] std::string colour_class(const ChartColour& colour);
// <text>, escaped. `anchor`: start, middle or end.
[[nodiscard]] std::string text_at(double x, double y, std::string_view anchor,
                                  std::string_view text, std::string_view style = "tick");
[[nodiscard]] std::string line_between(double x1, double y1, double x2, double y2,
                                       std::string_view style);
// Columns that UTF-8 text takes, each character counted as one.
[[nodiscard]] size_t num_characters(std::string_view text);
// <figure> around `body`, with title, note and legend (HTML) above it. `style`: class attribute.
[[nodiscard]] std::string figure(const std::string& title, const std::string& note,
                                 const std::string& legend, const std::string& body,
                                 std::string_view style = "");
// One entry of a legend; `mark` is line, dashed, dot or block.
[[nodiscard]] std::string legend_entry(std::string_view mark, const std::string& colour,
                                       std::string_view name, std::string_view value);
}  // namespace trireme::internal
