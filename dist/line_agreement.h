#pragma once
#include <string>

#include "dist/mpi_environment.h"

namespace trireme {

// Ranks that must hold the same tell it to each other as text, a fact a line. Where a rank's
// differs from rank 0's, all ranks throw: one of them a UsageError that names the first line that
// differs, "the ranks' WHAT differ: where rank 0 has …, rank 1 has …. CURE". Collective.
void agree_on_lines(MpiEnvironment& mpi, const std::string& mine, const std::string& what,
                    const std::string& cure);
}  // namespace trireme
