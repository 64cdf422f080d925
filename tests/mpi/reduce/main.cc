#include <gmock/gmock.h>

#include "tests/mpi/reduce/world.h"
#include "trainer/torch_api.h"

namespace trireme::test {
namespace {
MpiEnvironment* the_environment = nullptr;
}
MpiEnvironment* environment() { return the_environment; }

static int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  MpiEnvironment mpi;
  the_environment = &mpi;
  torch::set_num_threads(1);
  return RUN_ALL_TESTS();
}
}  // namespace trireme::test

int main(int argc, char** argv) { return trireme::test::run_tests(argc, argv); }
