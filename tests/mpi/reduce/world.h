#pragma once
#include "dist/mpi_environment.h"

namespace trireme::test {
// The environment that main() owns.
[[nodiscard]] MpiEnvironment* environment();
}  // namespace trireme::test
