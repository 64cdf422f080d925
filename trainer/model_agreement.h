#pragma once
#include <string>
#include <vector>

#include "dist/mpi_environment.h"
#include "trainer/reduce/gradient_buckets.h"

namespace trireme {

// Ranks whose models differ would add up gradients that do not belong together. These compare every
// rank with rank 0, and throw a UsageError on all ranks together that names the first difference.
// Collective.

// Names, shapes and values of the parameters to be trained.
void agree_on_model(MpiEnvironment& mpi, const NamedParameters& parameters);

// Which parameters share a bucket, in which order.
void agree_on_buckets(MpiEnvironment& mpi, const NamedParameters& parameters,
                      const BucketPlan& plan);
}  // namespace trireme
