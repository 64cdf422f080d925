#include "study/calibration.h"

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "study/csv.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
// Results of the group all_reduce, named "all_reduce:BYTES", with their median seconds.
void parse_bench(std::string_view text, const std::string& name, Calibration& calibration) {
  const auto json = parse_json_object(text, name, "benchmark");
  const auto ranks = json.find("ranks");
  const auto results = json.find("results");
  const bool is_bench = ranks != json.end() && ranks->is_number_integer() &&
                        results != json.end() && results->is_array();
  if (!is_bench) {
    throw InputError(name + " is no file of `trireme bench --json`: it lacks ranks or results.");
  }
  const int num_ranks = ranks->get<int>();
  if (num_ranks < 2) {
    throw InputError(name + " was measured on one rank, which reduces nothing: bench with -n 2.");
  }
  constexpr std::string_view kPrefix = "all_reduce:";
  for (const auto& result : *results) {
    const bool is_named =
        result.is_object() && result.contains("name") && result["name"].is_string();
    const std::string what = is_named ? result["name"].get<std::string>() : std::string();
    if (!what.starts_with(kPrefix)) continue;
    const auto bytes = number_in(std::string_view(what).substr(kPrefix.size()));
    const auto seconds = result.find("seconds");
    const bool has_median = seconds != result.end() && seconds->is_object() &&
                            seconds->contains("median") && (*seconds)["median"].is_number();
    const double median = has_median ? (*seconds)["median"].get<double>() : 0.0;
    if (!bytes || *bytes <= 0.0 || !(median > 0.0)) continue;
    const double shares = 2.0 * (num_ranks - 1) / num_ranks;
    calibration.all_reduces.push_back(
        {.bytes = *bytes, .bus_gbps = shares * *bytes / median / 1e9});
  }
  calibration.all_reduce_ranks = num_ranks;
}
}  // namespace

void parse_calibration(std::string_view text, const std::string& name, Calibration& calibration) {
  if (text.starts_with('{')) {
    parse_bench(text, name, calibration);
    return;
  }
  const CsvTable table = parse_csv(text, name);
  if (table.find("bytes")) {
    const size_t bytes = table.index_of("bytes");
    const size_t bus = table.index_of("bus_gbps");
    for (const auto& line : table.lines) {
      calibration.all_reduces.push_back({.bytes = table.positive_number(line, bytes),
                                         .bus_gbps = table.positive_number(line, bus)});
    }
    return;
  }
  constexpr std::string_view kColumns =
      "A calibration has columns ranks, samples_per_rank, images_per_second, or bytes, bus_gbps.";
  const size_t ranks = table.index_of("ranks", kColumns);
  const size_t samples = table.index_of("samples_per_rank", kColumns);
  const size_t rate = table.index_of("images_per_second", kColumns);
  for (const auto& line : table.lines) {
    const double num_ranks = table.positive_number(line, ranks);
    if (num_ranks != std::floor(num_ranks) || num_ranks > 1e6) {
      throw InputError(name + ":" + std::to_string(line.number) + ": ranks is '" +
                       line.fields[ranks] + "', but must be a whole number up to 1,000,000.");
    }
    calibration.steps.push_back({.num_ranks = static_cast<int>(num_ranks),
                                 .samples_per_rank = table.positive_number(line, samples),
                                 .samples_per_second = table.positive_number(line, rate)});
  }
}

void read_calibration(const std::filesystem::path& file, Calibration& calibration) {
  parse_calibration(read_text_file(file, "calibration"), file.string(), calibration);
}
}  // namespace trireme
