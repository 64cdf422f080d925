#pragma once
#include <memory>

#include "dist/communicator.h"

namespace trireme {
// One rank alone: every collective is a copy at most, done at once.
[[nodiscard]] std::unique_ptr<Communicator> make_local_communicator();

// Zeroed host memory, 64-byte aligned.
[[nodiscard]] std::unique_ptr<CommBuffer> allocate_host_buffer(int64_t num_elements,
                                                               ScalarType type);
}  // namespace trireme
