#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "trainer/optim/optimizer.h"

namespace trireme::internal {

// The hyperparameters that some segments share.
struct SegmentGroup {
  double lr_multiplier = 1.0;
  double decay_multiplier = 1.0;
  friend bool operator==(const SegmentGroup&, const SegmentGroup&) = default;
};

// The segment's group, an index into `groups`, which grows by it where it is new.
[[nodiscard]] size_t group_of(const FlatSegment& segment, std::vector<SegmentGroup>& groups);

// A stretch [first, last) of a bucket, in elements from its start, that belongs to one group.
struct SegmentRun {
  int64_t first = 0;
  int64_t last = 0;
  size_t group = 0;
};

// What element-wise optimizers walk instead of tensors: neighbours of one group are one run, so
// that without groups a range is a single run. Padding belongs to the segment before it.
struct SegmentRuns {
  std::vector<SegmentGroup> groups;
  std::vector<std::vector<SegmentRun>> runs;  // By bucket, ascending; they cover its range.
};

[[nodiscard]] SegmentRuns make_segment_runs(const std::vector<FlatBucket>& buckets,
                                            const std::vector<FlatRange>& ranges);
}  // namespace trireme::internal
