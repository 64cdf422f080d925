#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "core/tracer.h"

namespace trireme {

// One rank's spans as Chrome trace events (docs/trace.md), separated by ",\n", metadata first:
// process `rank`, a thread a track, times in microseconds since `origin`. Spans that began before
// it are left out; where spans of a track would overlap by rounding, the later one is cut.
[[nodiscard]] std::string trace_events(int rank, const std::string& host,
                                       const std::vector<std::string>& tracks,
                                       std::vector<TraceSpan> spans,
                                       std::chrono::steady_clock::time_point origin);

// The whole file: the events of all ranks.
[[nodiscard]] std::string trace_json(const std::vector<std::string>& events_by_rank);
}  // namespace trireme
