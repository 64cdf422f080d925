#pragma once
#include "trainer/session.h"

namespace trireme {

// What one training sample costs, measured on this machine's CPU by forward passes of one sample,
// of which large latents give a part; costs are scaled up by area.
struct SampleCost {
  double forward_seconds = 0.0;
  double activation_bytes = 0.0;  // What backward needs, in float32.
};

// Local. The session's model is on the CPU and keeps its weights. REQUIRES: training samples.
[[nodiscard]] SampleCost measure_sample_cost(const Session& session);
}  // namespace trireme
