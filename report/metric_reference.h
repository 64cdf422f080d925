#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// What a number in metrics.jsonl is called and means: the one place for reports, and for
// docs/reference.md, which is generated from it.
struct MetricInfo {
  std::string_view kind;  // "train" or "eval"
  std::string_view name;  // A K in it stands for digits: "val_loss_band_K".
  std::string_view title;
  std::string_view meaning;  // A sentence, shown under the chart.
};

// In the order in which they are listed.
[[nodiscard]] const std::vector<MetricInfo>& metric_reference();
// nullptr for a name that is not listed: it is drawn under its own name.
[[nodiscard]] const MetricInfo* metric_info(std::string_view kind, const std::string& name);
}  // namespace trireme
