#include "trainer/optim/parameter_groups.h"

namespace trireme {

void assign_parameter_groups(const OptimOptions& options, std::vector<FlatBucket>& buckets) {
  for (auto& bucket : buckets) {
    for (auto& segment : bucket.segments) {
      const bool decays = options.decay_norms_and_biases || segment.shape.size() > 1;
      segment.decay_multiplier = decays ? 1.0 : 0.0;
    }
  }
}
}  // namespace trireme
