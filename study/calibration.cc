#include "study/calibration.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/error.h"
#include "core/files.h"
#include "study/csv.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
constexpr int kMaxRanks = 1'000'000;

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
  const auto num_ranks = ranks->get<double>();
  if (num_ranks < 2 || num_ranks > kMaxRanks) {
    throw InputError(name + " has \"ranks\": " + ranks->dump() +
                     "; all-reduces are of 2 to 1,000,000 ranks: bench with -n 2, say.");
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
    calibration.all_reduces.push_back({.bytes = *bytes,
                                       .bus_gbps = shares * *bytes / median / 1e9,
                                       .num_ranks = static_cast<int>(num_ranks)});
  }
}

int ranks_in(const CsvTable& table, const CsvTable::Line& line, size_t column, int least) {
  const double ranks = table.positive_number(line, column);
  if (ranks == std::floor(ranks) && ranks >= least && ranks <= kMaxRanks) {
    return static_cast<int>(ranks);
  }
  throw InputError(table.name + ":" + std::to_string(line.number) + ": ranks is '" +
                   line.fields[column] + "', but must be a whole number from " +
                   std::to_string(least) + " to 1,000,000.");
}

void read_all_reduces(const CsvTable& table, Calibration& calibration) {
  const size_t bytes = table.index_of("bytes");
  const size_t bus = table.index_of("bus_gbps");
  const auto ranks = table.find("ranks");
  for (const auto& line : table.lines) {
    calibration.all_reduces.push_back({.bytes = table.positive_number(line, bytes),
                                       .bus_gbps = table.positive_number(line, bus),
                                       .num_ranks = ranks ? ranks_in(table, line, *ranks, 2) : 0});
  }
}

void read_steps(const CsvTable& table, Calibration& calibration) {
  constexpr std::string_view kColumns =
      "A calibration has columns ranks, samples_per_rank, images_per_second, or bytes, bus_gbps.";
  const size_t ranks = table.index_of("ranks", kColumns);
  const size_t samples = table.index_of("samples_per_rank", kColumns);
  const size_t rate = table.index_of("images_per_second", kColumns);
  for (const auto& line : table.lines) {
    calibration.steps.push_back({.num_ranks = ranks_in(table, line, ranks, 1),
                                 .samples_per_rank = table.positive_number(line, samples),
                                 .samples_per_second = table.positive_number(line, rate)});
  }
}
}  // namespace

void parse_calibration(std::string_view text, const std::string& name, Calibration& calibration) {
  const size_t before = calibration.steps.size() + calibration.all_reduces.size();
  if (text.starts_with('{')) {
    parse_bench(text, name, calibration);
  } else {
    const CsvTable table = parse_csv(text, name);
    table.find("bytes") ? read_all_reduces(table, calibration) : read_steps(table, calibration);
  }
  if (calibration.steps.size() + calibration.all_reduces.size() == before) {
    throw InputError(name +
                     " holds no measurement to calibrate with: it needs a line of a step or an "
                     "all-reduce (docs/plan.md), or results of `trireme bench all_reduce`.");
  }
}

void place_all_reduces(const Fabric& fabric, Calibration& calibration) {
  auto& all = calibration.all_reduces;
  for (auto& point : all) {
    if (point.num_ranks == 0) point.num_ranks = std::min(8, fabric.ranks_per_node);
  }
  const auto is_of_node = [&](const auto& point) {
    return point.num_ranks <= fabric.ranks_per_node;
  };
  const auto between = std::ranges::partition(all, is_of_node).begin();
  const auto require_sizes = [](std::span<const MeasuredAllReduce> points, const char* where) {
    if (points.empty()) return;
    const auto [least, most] = std::ranges::minmax(points, {}, &MeasuredAllReduce::bytes);
    if (least.bytes < most.bytes) return;
    throw InputError(std::string("--calibrate: the all-reduces ") + where +
                     " are all of one size, which cannot tell latency from bandwidth. Measure two "
                     "sizes or more, a small and a large one.");
  };
  require_sizes({all.begin(), between}, "within a node");
  require_sizes({between, all.end()}, "between nodes");
}

void read_calibration(const std::filesystem::path& file, Calibration& calibration) {
  parse_calibration(read_text_file(file, "calibration"), file.string(), calibration);
}
}  // namespace trireme
