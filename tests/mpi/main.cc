#include <array>
#include <cstdint>

#include <gtest/gtest.h>

#include "dist/mpi_environment.h"
#include "tests/mpi/world.h"

namespace {
trireme::MpiEnvironment* environment = nullptr;  // Set by main() while tests run.
}  // namespace

trireme::MpiEnvironment& trireme::test::world() { return *environment; }

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return trireme::run_as_rank([](trireme::MpiEnvironment& mpi) {
    environment = &mpi;
    // Only rank 0 reports what passes; failures are reported by each rank.
    if (mpi.rank() != 0) testing::GTEST_FLAG(brief) = true;
    std::array<int64_t, 1> failed{RUN_ALL_TESTS()};
    mpi.all_reduce_max(failed);
    environment = nullptr;
    return static_cast<int>(failed[0]);
  });
}
