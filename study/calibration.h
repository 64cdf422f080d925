#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "study/collective_model.h"
#include "study/step_model.h"

namespace trireme {

// Measurements of the machine that is planned for.
struct Calibration {
  std::vector<MeasuredStep> steps;
  std::vector<MeasuredAllReduce> all_reduces;
};

// Adds those of a CSV file with columns `ranks`, `samples_per_rank`, `images_per_second` (training
// steps) or `bytes`, `bus_gbps` and perhaps `ranks` (all-reduces), or the all-reduces of what
// `bench --json FILE` wrote. Throws InputError naming file and line, or a file without any.
void read_calibration(const std::filesystem::path& file, Calibration& calibration);
void parse_calibration(std::string_view text, const std::string& name, Calibration& calibration);

// Gives all-reduces without a number of ranks that of a node of `fabric`, eight at most. Throws
// InputError where those of a node, or those between nodes, have all the same size, which cannot
// tell latency from bandwidth.
void place_all_reduces(const Fabric& fabric, Calibration& calibration);
}  // namespace trireme
