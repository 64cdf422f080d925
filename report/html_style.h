#pragma once
#include <string_view>

namespace trireme::internal {
// The style sheet of HtmlPage, colours of the charts included.
extern const std::string_view kStyleSheet;
}  // namespace trireme::internal
