#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// A CSV file with a header (RFC 4180: quoted fields may hold commas and line ends). Empty lines and
// lines that begin with '#' are left out; blanks around unquoted fields too.
struct CsvTable {
  struct Line {
    int64_t number = 0;  // In the file, from 1.
    std::vector<std::string> fields;
  };
  std::string name;  // Of the file, for messages.
  std::vector<std::string> header;
  std::vector<Line> lines;

  [[nodiscard]] std::optional<size_t> find(std::string_view column) const;
  // Throws InputError naming the columns there are, the nearest first, and `advice`; or for a
  // column that is there twice.
  [[nodiscard]] size_t index_of(std::string_view column, std::string_view advice = {}) const;
  // Throws InputError naming file and line for what is no positive finite number.
  [[nodiscard]] double positive_number(const Line& line, size_t column) const;
};

// Throws InputError naming `name` and the line for an unclosed quote or a line with more or fewer
// fields than the header, and for a text without header.
[[nodiscard]] CsvTable parse_csv(std::string_view text, const std::string& name);

// The whole field as a number.
[[nodiscard]] std::optional<double> number_in(std::string_view text);
}  // namespace trireme
