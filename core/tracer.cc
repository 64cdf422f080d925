#include "core/tracer.h"

#include <algorithm>
#include <utility>

namespace trireme {

int32_t Tracer::track(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(tracks_, name);
  if (found != tracks_.end()) return static_cast<int32_t>(found - tracks_.begin());
  tracks_.push_back(name);
  return static_cast<int32_t>(tracks_.size() - 1);
}

void Tracer::record(int32_t track, std::string name, std::chrono::steady_clock::time_point begin,
                    std::chrono::steady_clock::time_point end) {
  if (!is_on_) return;
  const std::lock_guard lock(mutex_);
  spans_.push_back({.track = track, .name = std::move(name), .begin = begin, .end = end});
}

std::vector<std::string> Tracer::tracks() const {
  const std::lock_guard lock(mutex_);
  return tracks_;
}

std::vector<TraceSpan> Tracer::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(spans_, {});
}
}  // namespace trireme
