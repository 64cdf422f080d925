#pragma once
#include <string>
#include <vector>

#include "trainer/config.h"

namespace trireme {

// The names that freeze.groups takes (docs/config.md).
[[nodiscard]] const std::vector<std::string>& freeze_groups();

// For each parameter (diffusers' names) whether it is trained: no pattern matches, no group holds
// it, and it is not of the first blocks. Throws UsageError for a pattern that is no regular
// expression, for more blocks than the model has, and where nothing is left to train.
[[nodiscard]] std::vector<bool> select_trained(const std::vector<std::string>& names,
                                               const FreezeOptions& options);
}  // namespace trireme
