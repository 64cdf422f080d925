#include "study/points.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "core/error.h"
#include "core/files.h"

namespace trireme {
namespace {
struct CsvLine {
  int64_t number = 0;  // Of its first line in the file, from 1.
  std::vector<std::string> fields;
};

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

std::optional<double> number_in(const std::string& text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Splits `text` into lines of fields; empty lines and comments are left out.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& name) : text_(text), name_(name) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  std::optional<CsvLine> next() {
    while (!text_.empty()) {
      CsvLine line{.number = line_number_, .fields = {}};
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

size_t column_index(const std::vector<std::string>& header, const std::string& column,
                    const std::string& name, std::string_view option) {
  const auto found = std::ranges::find(header, column);
  if (found != header.end()) return static_cast<size_t>(found - header.begin());
  std::string columns;
  for (const auto& title : header) columns += (columns.empty() ? "" : ", ") + title;
  const std::string nearest = nearest_word(column, header);
  throw InputError(name + " has no column '" + column + "' (it has " + columns + ")" +
                   (nearest.empty() ? "." : "; did you mean '" + nearest + "'?") +
                   (option.empty() ? "" : " Name it with " + std::string(option) + "."));
}

bool holds(const ColumnFilter& filter, const std::string& field) {
  const auto wanted = number_in(filter.value);
  const auto found = number_in(field);
  const bool is_equal = wanted && found ? *wanted == *found : filter.value == field;
  return is_equal == (filter.match == ColumnFilter::Match::kEqual);
}

double positive_number(const CsvLine& line, size_t column, const std::string& title,
                       const std::string& name) {
  const auto value = number_in(line.fields[column]);
  if (value && std::isfinite(*value) && *value > 0.0) return *value;
  throw InputError(name + ":" + std::to_string(line.number) + ": " + title + " is '" +
                   line.fields[column] + "', but must be a positive number.");
}

bool is_empty(const std::string& field) {
  return field.empty() || field == "nan" || field == "NaN" || field == "null";
}
}  // namespace

ColumnFilter parse_column_filter(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || text.substr(0, equals) == "!") {
    throw UsageError("--where " + std::string(text) +
                     ": expected column=value or column!=value, for example --where round=5.0.0.");
  }
  ColumnFilter filter;
  const bool is_unequal = text[equals - 1] == '!';
  filter.match = is_unequal ? ColumnFilter::Match::kUnequal : ColumnFilter::Match::kEqual;
  filter.column = trimmed(text.substr(0, is_unequal ? equals - 1 : equals));
  filter.value = trimmed(text.substr(equals + 1));
  return filter;
}

Points parse_points(std::string_view text, const std::string& name, const PointsQuery& query) {
  CsvReader reader(text, name);
  const auto header = reader.next();
  if (!header) throw InputError(name + " is empty; its first line must name the columns.");
  const size_t batch_column = column_index(header->fields, "batch", name, {});
  const size_t samples_column =
      column_index(header->fields, query.samples_column, name, "--samples-column");
  std::vector<std::pair<size_t, const ColumnFilter*>> filters;
  for (const auto& filter : query.where) {
    filters.emplace_back(column_index(header->fields, filter.column, name, {}), &filter);
  }
  Points points;
  std::map<double, std::vector<double>> by_batch;
  while (const auto line = reader.next()) {
    if (line->fields.size() != header->fields.size()) {
      throw InputError(name + ":" + std::to_string(line->number) + ": " +
                       std::to_string(line->fields.size()) + " fields, but the first line names " +
                       std::to_string(header->fields.size()) + ".");
    }
    const bool is_wanted = std::ranges::all_of(filters, [&line](const auto& filter) {
      return holds(*filter.second, line->fields[filter.first]);
    });
    if (!is_wanted) continue;
    if (is_empty(line->fields[samples_column])) {
      ++points.num_without_value;
      continue;
    }
    const double batch = positive_number(*line, batch_column, "batch", name);
    by_batch[batch].push_back(positive_number(*line, samples_column, query.samples_column, name));
    ++points.num_runs;
  }
  for (auto& [batch, samples] : by_batch) points.batches.push_back({batch, std::move(samples)});
  if (points.batches.empty()) {
    throw UsageError(name + " has no line with a value" +
                     (query.where.empty() ? "." : " that fits every --where."));
  }
  return points;
}

Points read_points(const std::filesystem::path& file, const PointsQuery& query) {
  return parse_points(read_text_file(file, "points"), file.string(), query);
}
}  // namespace trireme
