#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// Measured points of the trade-off between time and data: each line of a CSV file is one run.

// All runs at one global batch.
struct BatchRuns {
  double batch = 0.0;
  std::vector<double> samples;  // Samples to target, one a run.
};

// A line counts where its column has (kEqual), or does not have (kUnequal), the value. Numbers
// compare as numbers ("512" is "512.0"), all else as text.
struct ColumnFilter {
  enum class Match { kEqual, kUnequal };
  std::string column;
  Match match = Match::kEqual;
  std::string value;
};

// Reads "column=value" or "column!=value"; throws UsageError.
[[nodiscard]] ColumnFilter parse_column_filter(std::string_view text);

struct PointsQuery {
  std::string samples_column = "samples";
  std::vector<ColumnFilter> where;
};

struct Points {
  std::vector<BatchRuns> batches;  // By batch, ascending.
  int64_t num_runs = 0;            // In them.
  int64_t num_without_value = 0;   // Lines left out because their samples are empty.
};

// Reads the columns `batch` and `samples_column` of a CSV file (study/csv.h). Throws InputError
// naming file and line for a value that is no positive number, for more than 256 batches and for
// fewer than two; that is a UsageError where `query` leaves out lines.
[[nodiscard]] Points read_points(const std::filesystem::path& file, const PointsQuery& query);

// The same from text; `name` stands for the file in errors.
[[nodiscard]] Points parse_points(std::string_view text, const std::string& name,
                                  const PointsQuery& query);
}  // namespace trireme
