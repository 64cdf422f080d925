#pragma once
#include <cstdint>
#include <vector>

#include "study/network_cost.h"

namespace trireme {

// The engine's gradient buckets for a network, with the moment of backward when each is full.
struct BucketTime {
  int64_t num_elements = 0;
  double ready_share = 0.0;  // Of backward's time, in (0, 1].
};

// Plans with trainer/reduce's plan_buckets(), gradients coming in the reverse order of the forward
// pass, and a layer's backward taking its share of the multiply-adds. `bucket_elements` 0: the
// engine's own size.
[[nodiscard]] std::vector<BucketTime> plan_bucket_times(const NetworkCost& network,
                                                        int64_t bucket_elements);
}  // namespace trireme
