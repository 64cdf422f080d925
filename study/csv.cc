#include "study/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace trireme {
namespace {
std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

// Splits `text` into lines of fields; empty lines and comments are left out.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& name) : text_(text), name_(name) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  std::optional<CsvTable::Line> next() {
    while (!text_.empty()) {
      CsvTable::Line line{.number = line_number_, .fields = {}};
      const bool is_comment = text_.front() == '#';
      while (read_field(line.fields)) {
      }
      const bool is_blank = line.fields.size() == 1 && line.fields.front().empty();
      if (!is_comment && !is_blank) return line;
    }
    return std::nullopt;
  }

 private:
  // Returns whether the line has a further field.
  bool read_field(std::vector<std::string>& fields) {
    const size_t first = text_.find_first_not_of(" \t");
    const bool is_quoted = first != std::string_view::npos && text_[first] == '"';
    if (is_quoted) {
      fields.push_back(read_quoted(first + 1));
    } else {
      const size_t end = std::min(text_.find_first_of(",\n"), text_.size());
      fields.push_back(trimmed(text_.substr(0, end)));
      text_.remove_prefix(end);
    }
    if (text_.empty()) return false;
    const bool goes_on = text_.front() == ',';
    if (text_.front() == '\n') ++line_number_;
    text_.remove_prefix(1);
    return goes_on;
  }

  // The field whose opening quote is before `begin`; stops at the comma or line end after it.
  std::string read_quoted(size_t begin) {
    std::string field;
    size_t i = begin;
    for (;; ++i) {
      if (i >= text_.size()) {
        throw InputError(name_ + ":" + std::to_string(line_number_) +
                         ": a quoted field has no closing quote.");
      }
      if (text_[i] == '"') {
        if (i + 1 >= text_.size() || text_[i + 1] != '"') break;
        ++i;  // Two quotes stand for one.
      }
      if (text_[i] == '\n') ++line_number_;
      field += text_[i];
    }
    text_.remove_prefix(i + 1);
    const size_t end = std::min(text_.find_first_of(",\n"), text_.size());
    if (!trimmed(text_.substr(0, end)).empty()) {
      throw InputError(name_ + ":" + std::to_string(line_number_) +
                       ": text follows a quoted field; write a quote inside it twice.");
    }
    text_.remove_prefix(end);
    return field;
  }

  std::string_view text_;
  const std::string& name_;
  int64_t line_number_ = 1;
};

}  // namespace

std::optional<double> number_in(std::string_view text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

CsvTable parse_csv(std::string_view text, const std::string& name) {
  CsvReader reader(text, name);
  auto header = reader.next();
  if (!header) throw InputError(name + " is empty; its first line must name the columns.");
  CsvTable table{.name = name, .header = std::move(header->fields), .lines = {}};
  while (auto line = reader.next()) {
    if (line->fields.size() != table.header.size()) {
      throw InputError(name + ":" + std::to_string(line->number) + ": " +
                       std::to_string(line->fields.size()) + " fields, but the first line names " +
                       std::to_string(table.header.size()) + ".");
    }
    table.lines.push_back(std::move(*line));
  }
  return table;
}

std::optional<size_t> CsvTable::find(std::string_view column) const {
  const auto found = std::ranges::find(header, column);
  if (found == header.end()) return std::nullopt;
  return static_cast<size_t>(found - header.begin());
}

size_t CsvTable::index_of(std::string_view column, std::string_view advice) const {
  if (std::ranges::count(header, column) > 1) {
    throw InputError(name + ": its first line names the column '" + std::string(column) +
                     "' twice. Remove or rename one.");
  }
  if (const auto index = find(column)) return *index;
  std::string columns;
  for (const auto& title : header) columns += (columns.empty() ? "" : ", ") + title;
  const std::string nearest = nearest_word(column, header);
  throw InputError(name + " has no column '" + std::string(column) + "' (it has " + columns + ")" +
                   (nearest.empty() ? "." : "; did you mean '" + nearest + "'?") +
                   (advice.empty() ? "" : " " + std::string(advice)));
}

double CsvTable::positive_number(const Line& line, size_t column) const {
  const auto value = number_in(line.fields[column]);
  if (value && std::isfinite(*value) && *value > 0.0) return *value;
  throw InputError(name + ":" + std::to_string(line.number) + ": " + header[column] + " is '" +
                   line.fields[column] + "', but must be a positive number.");
}
}  // namespace trireme
