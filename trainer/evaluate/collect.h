#pragma once
#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "dist/mpi_environment.h"

namespace trireme {

// Adds a contiguous double tensor of each rank up, in pieces that any MPI takes. Exact where each
// number is one rank's plus zeros. Collective.
void all_reduce_in_pieces(MpiEnvironment& mpi, const at::Tensor& values);

// Calls `work` with this rank's groups of at most `size` of `count` items, in turn. Which items
// make a group does not depend on the number of ranks. Local.
void for_own_groups(const MpiEnvironment& mpi, int64_t count, int64_t size,
                    const std::function<void(int64_t first, int64_t n)>& work);

// The float32 rows (count, width) of which each rank computed its own groups' (the others' are
// zero) on every rank. Collective.
void collect_rows(MpiEnvironment& mpi, const at::Tensor& rows);
}  // namespace trireme
