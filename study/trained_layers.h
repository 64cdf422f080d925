#pragma once
#include "study/network_cost.h"
#include "trainer/config.h"

namespace trireme {

// Leaves of `network`, fully trained so far, what [adapter] or [freeze] leave: frozen tensors have
// no gradient, no optimizer state and no product of their own in backward, which ends where nothing
// before is trained. An adapter's matrices are layers that follow those they belong to
// (trainer/adapters/lora.h). Throws UsageError as select_trained() does, and for an adapter target
// that names no layer.
void leave_trained(NetworkCost& network, const Config& config);
}  // namespace trireme
