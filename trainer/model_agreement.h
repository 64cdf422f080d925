#pragma once
#include <filesystem>
#include <string>

#include "dist/mpi_environment.h"
#include "trainer/reduce/gradient_buckets.h"
#include "trainer/session.h"

namespace trireme {

// Ranks whose models or data differ, on hosts with other copies of the files, would add up
// gradients that do not belong together. These compare every rank with rank 0, and throw a
// UsageError on all ranks together that names the first difference. Collective.

// What the session read: its model, the sampling rules of its scheduler config, and its data as
// identity_of() has it. Reads the weights once, at the speed of memory (0.07 s for 1e9 bytes, on
// one core of a server), and keeps no copy of them.
void agree_on_session(MpiEnvironment& mpi, const Session& session);

// The network's configuration, "key = value" lines; names, shapes and values of its parameters.
void agree_on_model(MpiEnvironment& mpi, const std::string& config,
                    const NamedParameters& parameters);

// Which parameters share a bucket, in which order.
void agree_on_buckets(MpiEnvironment& mpi, const NamedParameters& parameters,
                      const BucketPlan& plan);

// The files of a checkpoint, by its manifest.
void agree_on_checkpoint(MpiEnvironment& mpi, const std::filesystem::path& folder);
}  // namespace trireme
