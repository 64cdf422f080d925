#pragma once
#include "dist/mpi_environment.h"

namespace trireme::test {
// The environment that main() holds; tests run on all its ranks together.
[[nodiscard]] MpiEnvironment& world();
}  // namespace trireme::test
