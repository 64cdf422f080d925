#include "trainer/optim/segment_runs.h"

#include <algorithm>

namespace trireme::internal {
size_t group_of(const FlatSegment& segment, std::vector<SegmentGroup>& groups) {
  const SegmentGroup wanted{segment.lr_multiplier, segment.decay_multiplier};
  const auto found = std::ranges::find(groups, wanted);
  if (found != groups.end()) return static_cast<size_t>(found - groups.begin());
  groups.push_back(wanted);
  return groups.size() - 1;
}

SegmentRuns make_segment_runs(const std::vector<FlatBucket>& buckets,
                              const std::vector<FlatRange>& ranges) {
  SegmentRuns result;
  for (size_t b = 0; b < buckets.size(); ++b) {
    auto& runs = result.runs.emplace_back();
    const auto& segments = buckets[b].segments;
    for (size_t i = 0; i < segments.size(); ++i) {
      const int64_t begin = i == 0 ? 0 : segments[i].offset;
      const int64_t end = i + 1 < segments.size() ? segments[i + 1].offset : ranges[b].last;
      const int64_t first = std::max(begin, ranges[b].first);
      const int64_t last = std::min(end, ranges[b].last);
      if (first >= last) continue;
      const size_t group = group_of(segments[i], result.groups);
      if (!runs.empty() && runs.back().group == group) {
        runs.back().last = last;
      } else {
        runs.push_back({first, last, group});
      }
    }
  }
  return result;
}
}  // namespace trireme::internal
