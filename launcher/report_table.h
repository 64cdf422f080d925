#pragma once
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme {

// How a verb prints what it found: for people, or --json for programs.
enum class OutputFormat { kTable, kJson };

// What `inspect` and `check` print: headings, and rows of a name and a value, values aligned.
class ReportTable {
 public:
  void heading(std::string text);
  void row(std::string name, std::string value);
  // Lines under no name: as they are.
  void note(std::string text);
  void print(std::ostream& out) const;

 private:
  enum class Kind { kHeading, kRow, kNote };
  struct Line {
    Kind kind;
    std::string name;
    std::string value;
  };
  std::vector<Line> lines_;
};

[[nodiscard]] std::string format_count(int64_t count);       // 1,234,567
[[nodiscard]] std::string format_bytes(uint64_t num_bytes);  // "3.4 GiB"
[[nodiscard]] std::string format_number(double value);       // Six digits, no trailing zeros.
[[nodiscard]] std::string format_duration(double seconds);   // "3 h 20 min"
// "1 file", "3 files".
[[nodiscard]] std::string format_plural(int64_t count, std::string_view singular);
// `text` on one line: control characters escaped, cut to `max_bytes` at a character.
[[nodiscard]] std::string one_line(std::string_view text, size_t max_bytes = 200);
}  // namespace trireme
