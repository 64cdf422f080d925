#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/optim/optimizer.h"

namespace trireme {

enum class Checksummed { kParameters, kGradients };

// Sum modulo 2^64 of every element's bit pattern times an odd number that depends on its place in
// its bucket (and of buckets times odd numbers): the sum over ranks whose ranges make up the
// buckets is the same whatever the ranges, and any single flipped bit changes it. 0-d int64 on the
// buckets' device. Local.
[[nodiscard]] at::Tensor checksum_of(const std::vector<FlatBucket>& buckets,
                                     const std::vector<FlatRange>& ranges, Checksummed what);

// What this rank adds to that sum where every rank holds all of the buckets, `own` being the ranges
// that it stands for: the sum over ranks is the checksum of equal copies at any number of ranks,
// and a single flipped bit in the copy of any rank, wherever it lies, changes it.
[[nodiscard]] at::Tensor replica_checksum(const std::vector<FlatBucket>& buckets,
                                          const std::vector<FlatRange>& own, int num_ranks,
                                          Checksummed what);
}  // namespace trireme
