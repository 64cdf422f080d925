#include "study/points.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/files.h"
#include "study/csv.h"

namespace trireme {
namespace {
constexpr double kMostSamples = 1e30;  // No training has as many, and sums of them are finite.
constexpr size_t kMostBatches = 256;

double count_in(const CsvTable& table, const CsvTable::Line& line, size_t column) {
  const double value = table.positive_number(line, column);
  if (value <= kMostSamples && value >= 1.0 / kMostSamples) return value;
  throw InputError(table.name + ":" + std::to_string(line.number) + ": " + table.header[column] +
                   " is '" + line.fields[column] + "', which no training has.");
}

bool holds(const ColumnFilter& filter, const std::string& field) {
  const auto wanted = number_in(filter.value);
  const auto found = number_in(field);
  const bool is_equal = wanted && found ? *wanted == *found : filter.value == field;
  return is_equal == (filter.match == ColumnFilter::Match::kEqual);
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
  filter.column = text.substr(0, is_unequal ? equals - 1 : equals);
  filter.value = text.substr(equals + 1);
  return filter;
}

Points parse_points(std::string_view text, const std::string& name, const PointsQuery& query) {
  const CsvTable table = parse_csv(text, name);
  const size_t batch = table.index_of("batch");
  const size_t samples =
      table.index_of(query.samples_column, "Name the column of samples with --samples-column.");
  std::vector<std::pair<size_t, const ColumnFilter*>> filters;
  for (const auto& filter : query.where) {
    filters.emplace_back(table.index_of(filter.column), &filter);
  }
  Points points;
  std::map<double, std::vector<double>> by_batch;
  for (const auto& line : table.lines) {
    const bool is_wanted = std::ranges::all_of(filters, [&line](const auto& filter) {
      return holds(*filter.second, line.fields[filter.first]);
    });
    if (!is_wanted) continue;
    if (is_empty(line.fields[samples])) {
      ++points.num_without_value;
      continue;
    }
    by_batch[count_in(table, line, batch)].push_back(count_in(table, line, samples));
    ++points.num_runs;
  }
  for (auto& [size, runs] : by_batch) points.batches.push_back({size, std::move(runs)});
  if (points.batches.size() > kMostBatches) {
    throw InputError(name + " has " + std::to_string(points.batches.size()) +
                     " different batches, and a fit takes " + std::to_string(kMostBatches) +
                     " at most: is the column `batch` that of the global batch?");
  }
  if (points.batches.size() >= 2) return points;
  const std::string what =
      points.batches.empty() ? "no line with a value" : "runs of one batch, where a fit takes two";
  if (query.where.empty()) throw InputError(name + " has " + what + ".");
  throw UsageError(name + " has " + what + ", among the lines that fit every --where.");
}

Points read_points(const std::filesystem::path& file, const PointsQuery& query) {
  return parse_points(read_text_file(file, "points"), file.string(), query);
}
}  // namespace trireme
