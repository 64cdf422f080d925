#pragma once
#include <vector>

#include "trainer/optim/optimizer.h"

namespace trireme {

// Sets the segments' multipliers from the configuration (docs/optimizers.md, "Parameter groups"):
// without optim.decay_norms_and_biases, tensors of one dimension or none do not decay; these are
// the norms and biases of every model here; a tensor's rate is multiplied by the factors of all of
// optim.lr_multipliers whose regular expression is found in its name. Before make_optimizer().
// Throws UsageError for an expression that is none, or that is found in no name.
void assign_parameter_groups(const OptimOptions& options, std::vector<FlatBucket>& buckets);
}  // namespace trireme
