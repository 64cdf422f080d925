#pragma once
#include <string>
#include <utility>
#include <vector>

#include "report/run_record.h"

namespace trireme {

// What a run's folder records of its last start.
struct RunEnvironment {
  // For reading: when, what, with which program, and a row a host.
  std::vector<std::pair<std::string, std::string>> rows;
  // Every recorded value by its path, "hosts.0.memory_bytes"; empty where there is no
  // provenance.jsonl.
  std::vector<std::pair<std::string, std::string>> details;
};

// From provenance.jsonl or, where that says nothing, from the events of metrics.jsonl. Local.
[[nodiscard]] RunEnvironment read_run_environment(const RunRecord& record);
}  // namespace trireme
