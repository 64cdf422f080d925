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
  int all_reduce_ranks = 0;  // That took part; 0: a node.
};

// Adds those of a CSV file with columns `ranks`, `samples_per_rank`, `images_per_second` (training
// steps) or `bytes`, `bus_gbps` (all-reduces), or the all-reduces of what `bench --json FILE`
// wrote. Throws InputError naming file and line.
void read_calibration(const std::filesystem::path& file, Calibration& calibration);
void parse_calibration(std::string_view text, const std::string& name, Calibration& calibration);
}  // namespace trireme
