#pragma once
#include <string>
#include <utility>
#include <vector>

#include "report/chart.h"

namespace trireme {

// A number worth a glance, with a word on it: "0.4521", "validation loss", "−58 % since the start".
struct KeyFigure {
  std::string value;
  std::string name;
  std::string remark = {};
};

struct HtmlTable {
  struct Cell {
    std::string text;
    enum class Look { kPlain, kNumber, kCode, kStrong, kMuted } look = Look::kPlain;
  };
  std::vector<std::string> header;  // Empty: none. Alignment follows the first row's cells.
  struct Row {
    std::vector<Cell> cells;
    enum class Look { kPlain, kMarked } look = Look::kPlain;
  };
  std::vector<Row> rows;
};

// A picture inside the page.
struct HtmlPicture {
  std::string png;  // The file's bytes.
  std::string caption;
};

// One HTML file that needs nothing else: no network, no scripts, light and dark by the reader's
// setting, one column on a phone. Plain text goes in and is escaped; content comes out in the order
// in which it was added. Local.
class HtmlPage {
 public:
  // `status` is a word in a badge beside the title; `lede` a sentence under it. Both may be empty.
  HtmlPage(const std::string& title, const std::string& status, const std::string& lede);

  void key_figures(const std::vector<KeyFigure>& figures);
  // A heading, also in the contents at the top. What follows belongs to it.
  void section(const std::string& heading);
  void paragraph(const std::string& text);
  void list(const std::vector<std::string>& items);
  // Side by side where there is room; a wide one takes the row.
  void charts(const std::vector<Chart>& charts);
  void bars(const std::vector<BarChart>& charts);
  void table(const HtmlTable& table);
  // Closed until the reader opens it.
  void folded_table(const std::string& summary, const HtmlTable& table);
  void pictures(const std::vector<HtmlPicture>& pictures);

  [[nodiscard]] std::string text() const;  // The whole file.

 private:
  std::string title_;
  std::string head_;  // Title block.
  std::string body_;
  std::vector<std::string> headings_;
};
}  // namespace trireme
