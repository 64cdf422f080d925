#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "dist/communicator.h"

namespace trireme {
// destinations[*][i] = sources[0][i] op sources[1][i] op …, from left to right: the same bits
// whoever computes it. Works through the buffers by blocks that stay in cache, so a destination may
// be a source. REQUIRES: at least one source; no half types.
void reduce_buffers(ReduceOp op, ScalarType type, std::span<const std::byte* const> sources,
                    std::span<std::byte* const> destinations, int64_t num_elements);
}  // namespace trireme
