#pragma once
#include <string>
#include <string_view>

namespace trireme {

// `text` for an HTML page, in content and in quoted attributes: & < > " ' become references,
// control characters other than line feed and tab vanish, and what is not UTF-8 becomes U+FFFD.
[[nodiscard]] std::string escape_html(std::string_view text);

// Bytes as a data URI, say of "image/png".
[[nodiscard]] std::string data_uri(std::string_view media_type, std::string_view bytes);
}  // namespace trireme
