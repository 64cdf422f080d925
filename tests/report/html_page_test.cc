#include "report/html_page.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/html_text.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

TEST(EscapeHtmlTest, LeavesNothingThatAPageCouldObey) {
  EXPECT_EQ(escape_html("<a href=\"x\">'&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(escape_html(std::string("a\0\x1b[31mb", 8)), "a[31mb");
  EXPECT_EQ(escape_html("naïve 漢字 🎨"), "naïve 漢字 🎨");
}

TEST(EscapeHtmlTest, WhatIsNotUtf8BecomesTheReplacementCharacter) {
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(escape_html("a\xff"
                        "b"),
            "a" + bad + "b");
  EXPECT_EQ(escape_html("\xc0\xaf"), bad + bad);            // Overlong.
  EXPECT_EQ(escape_html("\xed\xa0\x80"), bad + bad + bad);  // A surrogate.
  EXPECT_EQ(escape_html("\xe6\xbc"), bad + bad);            // Cut off.
}

TEST(DataUriTest, IsBase64) {
  EXPECT_EQ(data_uri("image/png", "Man"), "data:image/png;base64,TWFu");
  EXPECT_EQ(data_uri("image/png", "Ma"), "data:image/png;base64,TWE=");
  EXPECT_EQ(data_uri("image/png", "M"), "data:image/png;base64,TQ==");
  EXPECT_EQ(data_uri("image/png", std::string("\xff\x00\xfe", 3)), "data:image/png;base64,/wD+");
}

TEST(HtmlPageTest, KeysBreakAtTheirJoints) {
  HtmlPage page("t", "", "");
  using Look = HtmlTable::Cell::Look;
  page.table(
      {.header = {}, .rows = {{.cells = {{"a.b_c/<d", Look::kCode}, {"0.25", Look::kCode}}}}});
  page.table({.header = {}, .rows = {{.cells = {{"a.b_c"}}}}});
  EXPECT_THAT(page.text(), HasSubstr(">a.<wbr>b_<wbr>c/<wbr>&lt;d</td>"));
  EXPECT_THAT(page.text(), HasSubstr(">0.25</td>"));
  EXPECT_THAT(page.text(), HasSubstr(">a.b_c</td>"));
}

TEST(HtmlPageTest, NeedsNothingFromElsewhereAndEscapesWhatItIsGiven) {
  const std::string attack = "\"><script src=//evil></script>";
  HtmlPage page(attack, attack, attack);
  page.key_figures({{attack, attack, attack}});
  page.section(attack);
  page.paragraph(attack);
  page.list({attack});
  page.table({.header = {attack}, .rows = {{.cells = {{attack}}}}});
  page.folded_table(attack, {.header = {}, .rows = {}});
  page.pictures({{.png = "png", .caption = attack}});
  page.charts({{.title = attack}});
  const std::string text = page.text();
  EXPECT_THAT(text, Not(HasSubstr("<script")));
  EXPECT_THAT(text, Not(HasSubstr("http:")));
  EXPECT_THAT(text, Not(HasSubstr("https:")));
  EXPECT_THAT(text, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(text, HasSubstr("default-src 'none'"));
}
}  // namespace
}  // namespace trireme
