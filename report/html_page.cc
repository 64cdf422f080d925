#include "report/html_page.h"

#include <algorithm>
#include <string_view>

#include "report/html_style.h"
#include "report/html_text.h"

namespace trireme {
namespace {
using Look = HtmlTable::Cell::Look;

std::string cell_class(Look look) {
  switch (look) {
    case Look::kPlain:
      return "";
    case Look::kNumber:
      return " class=\"num\"";
    case Look::kCode:
      return " class=\"code\"";
    case Look::kStrong:
      return " class=\"strong\"";
    case Look::kMuted:
      return " class=\"soft\"";
  }
  return {};
}

// Names and values of keys may break behind what joins their words; text in sentences breaks at
// blanks.
std::string cell_text(const HtmlTable::Cell& cell) {
  if (cell.look != Look::kCode && cell.look != Look::kMuted) return escape_html(cell.text);
  constexpr std::string_view kJoints = "._/,";
  std::string html;
  size_t begin = 0;
  for (size_t at = 0; at + 1 < cell.text.size(); ++at) {
    const bool is_number =
        cell.text[at] == '.' && cell.text[at + 1] >= '0' && cell.text[at + 1] <= '9';
    if (kJoints.find(cell.text[at]) == std::string_view::npos || is_number) continue;
    html += escape_html(cell.text.substr(begin, at + 1 - begin)) + "<wbr>";
    begin = at + 1;
  }
  return html + escape_html(cell.text.substr(begin));
}

std::string table_html(const HtmlTable& table) {
  const bool is_pairs = !table.rows.empty() && table.rows.front().cells.size() == 2;
  std::string html =
      is_pairs ? "<div class=\"scroll\"><table class=\"pairs\">" : "<div class=\"scroll\"><table>";
  if (!table.header.empty()) {
    html += "<thead><tr>";
    for (size_t i = 0; i < table.header.size(); ++i) {
      const bool is_number = !table.rows.empty() && i < table.rows.front().cells.size() &&
                             table.rows.front().cells[i].look == Look::kNumber;
      html += std::string(is_number ? "<th class=\"num\">" : "<th>") +
              escape_html(table.header[i]) + "</th>";
    }
    html += "</tr></thead>";
  }
  html += "<tbody>";
  for (const auto& row : table.rows) {
    html += row.look == HtmlTable::Row::Look::kMarked ? "<tr class=\"marked\">" : "<tr>";
    for (const auto& cell : row.cells) {
      html += "<td" + cell_class(cell.look) + ">" + cell_text(cell) + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}
}  // namespace

HtmlPage::HtmlPage(const std::string& title, const std::string& status, const std::string& lede)
    : title_(title) {
  head_ = "<header><div class=\"line\"><h1>" + escape_html(title) + "</h1>";
  if (!status.empty()) head_ += "<span class=\"badge\">" + escape_html(status) + "</span>";
  head_ += "</div>";
  if (!lede.empty()) head_ += "<p>" + escape_html(lede) + "</p>";
  head_ += "</header>\n";
}

void HtmlPage::key_figures(const std::vector<KeyFigure>& figures) {
  body_ += "<div class=\"figures\">";
  for (const auto& figure : figures) {
    body_ += "<div><b>" + escape_html(figure.value) + "</b><span>" + escape_html(figure.name) +
             "</span><small>" + escape_html(figure.remark) + "</small></div>";
  }
  body_ += "</div>\n";
}

void HtmlPage::section(const std::string& heading) {
  headings_.push_back(heading);
  body_ +=
      "<h2 id=\"s" + std::to_string(headings_.size()) + "\">" + escape_html(heading) + "</h2>\n";
}

void HtmlPage::paragraph(const std::string& text) { body_ += "<p>" + escape_html(text) + "</p>\n"; }

void HtmlPage::list(const std::vector<std::string>& items) {
  body_ += "<ul class=\"notes\">";
  for (const auto& item : items) body_ += "<li>" + escape_html(item) + "</li>";
  body_ += "</ul>\n";
}

void HtmlPage::charts(const std::vector<Chart>& charts) {
  // Three that belong together stand in one row.
  const bool is_row = charts.size() == 3 && std::ranges::all_of(charts, [](const Chart& chart) {
                        return chart.size == Chart::Size::kNormal;
                      });
  body_ += is_row ? "<div class=\"grid three\">" : "<div class=\"grid\">";
  for (const auto& chart : charts) body_ += render_chart(chart);
  body_ += "</div>\n";
}

void HtmlPage::bars(const std::vector<BarChart>& charts) {
  body_ += "<div class=\"grid\">";
  for (const auto& chart : charts) body_ += render_bars(chart);
  body_ += "</div>\n";
}

void HtmlPage::table(const HtmlTable& table) { body_ += table_html(table); }

void HtmlPage::folded_table(const std::string& summary, const HtmlTable& table) {
  body_ += "<details><summary>" + escape_html(summary) + "</summary>" + table_html(table) +
           "</details>\n";
}

void HtmlPage::pictures(const std::vector<HtmlPicture>& pictures) {
  body_ += "<div class=\"pictures\">";
  for (const auto& picture : pictures) {
    const std::string caption = escape_html(picture.caption);
    body_ += "<figure><img alt=\"" + caption + "\" src=\"" + data_uri("image/png", picture.png) +
             "\"><figcaption>" + caption + "</figcaption></figure>\n";
  }
  body_ += "</div>\n";
}

std::string HtmlPage::text() const {
  std::string contents;
  for (size_t i = 0; i < headings_.size(); ++i) {
    contents += "<a href=\"#s" + std::to_string(i + 1) + "\">" + escape_html(headings_[i]) + "</a>";
  }
  // The policy forbids what the page does not need, should text from outside ever slip through.
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
         "style-src 'unsafe-inline'; img-src data:\">\n<title>" +
         escape_html(title_) + "</title>\n<style>" + std::string(internal::kStyleSheet) +
         "</style>\n</head>\n<body>\n<main>\n" + head_ +
         (headings_.empty() ? "" : "<nav>" + contents + "</nav>\n") + body_ +
         "<footer>Written by trireme.</footer>\n</main>\n</body>\n</html>\n";
}
}  // namespace trireme
