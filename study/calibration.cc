#include "study/calibration.h"

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "study/csv.h"

namespace trireme {

void parse_calibration(std::string_view text, const std::string& name, Calibration& calibration) {
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
