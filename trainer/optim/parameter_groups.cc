#include "trainer/optim/parameter_groups.h"

#include <regex>
#include <string>

#include "core/error.h"

namespace trireme {

namespace {
void multiply_rates(const std::string& pattern, double factor, std::vector<FlatBucket>& buckets) {
  const std::string key = "optim.lr_multipliers: '" + pattern + "' ";
  std::regex expression;
  try {
    expression = std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    throw UsageError(key + "is not a regular expression (" + error.what() + ").");
  }
  bool is_found = false;
  for (auto& bucket : buckets) {
    for (auto& segment : bucket.segments) {
      if (!std::regex_search(segment.name, expression)) continue;
      segment.lr_multiplier *= factor;
      is_found = true;
    }
  }
  if (!is_found) {
    throw UsageError(key + "is found in no trained parameter's name. Correct or remove it.");
  }
}
}  // namespace

void assign_parameter_groups(const OptimOptions& options, std::vector<FlatBucket>& buckets) {
  for (auto& bucket : buckets) {
    for (auto& segment : bucket.segments) {
      const bool decays = options.decay_norms_and_biases || segment.shape.size() > 1;
      segment.decay_multiplier = decays ? 1.0 : 0.0;
      segment.lr_multiplier = 1.0;
    }
  }
  for (const auto& [pattern, factor] : options.lr_multipliers) {
    multiply_rates(pattern, factor, buckets);
  }
}
}  // namespace trireme
