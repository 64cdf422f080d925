#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/chart.h"
#include "report/run_record.h"

// Charts that the page on one run and the page on several share.
namespace trireme::internal {

enum class Abscissa { kSteps, kSamples, kSeconds };
[[nodiscard]] ChartAxis axis_of(Abscissa abscissa);
// The abscissa of each line of `table`, which is run.train or run.eval.
[[nodiscard]] std::vector<double> places(const RunRecord& run, const MetricTable& table,
                                         Abscissa abscissa);

// A column of training as one or two series: each step's value thinned out (faint), and its running
// mean, where there are enough steps for one. `name` goes to the legend.
[[nodiscard]] std::vector<ChartSeries> training_series(const RunRecord& run,
                                                       const std::string& column,
                                                       const std::string& name, Abscissa abscissa,
                                                       ChartColour colour);
// A column of evaluations: a line through its points.
[[nodiscard]] ChartSeries evaluation_series(const RunRecord& run, const std::string& column,
                                            const std::string& name, Abscissa abscissa,
                                            ChartColour colour);
// Steps on either side that the running mean takes in.
[[nodiscard]] int64_t reach_of(const RunRecord& run);
// Logarithmic where positive values span more than a factor of 30.
[[nodiscard]] ChartAxis::Scale scale_for(const std::vector<ChartSeries>& series);

// Every chart of one run, in the order of the page.
[[nodiscard]] std::vector<Chart> charts_of(const RunRecord& run);
// "grad_norm" as a title: "Gradient norm"; unknown names with spaces for underscores.
[[nodiscard]] std::string title_of(const std::string& column);
// NAME and K of a column NAME_band_K: a part of the timesteps, from little to much noise.
struct TimestepBand {
  std::string name;
  int number = 0;
};
[[nodiscard]] std::optional<TimestepBand> band_of(const std::string& column);
// The sentence that says what it is; empty for unknown ones. `kind`: "train" or "eval".
[[nodiscard]] std::string note_of(std::string_view kind, const std::string& column);

// Seconds where the column's name says so.
[[nodiscard]] ChartAxis::Format format_of(const std::string& column);
// The bytes of a picture; empty where it cannot be read.
[[nodiscard]] std::string bytes_of(const std::filesystem::path& file);

// The last finite value, and the smallest with its step; NaN where there is none.
[[nodiscard]] double last_of(const std::vector<double>& column);
struct Best {
  double value;
  double step;
};
[[nodiscard]] Best smallest_of(const MetricTable& table, const std::string& column);
}  // namespace trireme::internal
