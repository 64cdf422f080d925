#pragma once
#include <string>
#include <utility>
#include <vector>

#include "report/run_record.h"

namespace trireme {

// What a run's own files do not say in a form for drawing; gathered by the caller.
struct RunFacts {
  std::string name;
  std::string summary;  // A sentence: model, data, ranks.
  struct Key {
    std::string name;
    std::string value;
    std::string default_value;
    bool is_default = false;
  };
  std::vector<Key> keys;  // The configuration.
  struct Source {
    std::string file;
    std::vector<std::pair<std::string, std::string>> attributes;
    std::string problem;  // Why it cannot be read now; else empty.
  };
  std::vector<Source> data;
  std::vector<std::pair<std::string, std::string>> environment;
  std::vector<std::pair<std::string, std::string>> environment_details;  // Everything recorded.
};

struct ReportedRun {
  RunRecord record;
  RunFacts facts;
};

// The page on one run: figures, curves of whatever numbers its metrics have, samples over time,
// where the time went, configuration, data, environment, events (docs/report.md).
[[nodiscard]] std::string run_page(const ReportedRun& run);

// The page that compares several: figures, what differs in configuration, curves by steps, samples
// and time. REQUIRES: at least two.
[[nodiscard]] std::string comparison_page(const std::vector<ReportedRun>& runs);
}  // namespace trireme
