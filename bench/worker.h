#pragma once
#include <filesystem>

#include "dist/mpi_environment.h"

namespace trireme::bench {

// A worker's whole life: on rank 0 reads the names of cases (cases.h), a line each, from standard
// input and answers "BENCH seconds", until the input ends. Collective.
void serve(MpiEnvironment& mpi, const std::filesystem::path& folder);

// For the time from the start of the program to the end of its first step: makes that step, and
// says so. Collective.
void make_first_step(MpiEnvironment& mpi, const std::filesystem::path& folder);
}  // namespace trireme::bench
