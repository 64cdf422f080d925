#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

// A stretch of time on a track.
struct TraceSpan {
  int32_t track = 0;  // Index into Tracer::tracks().
  std::string name;
  std::chrono::steady_clock::time_point begin;
  std::chrono::steady_clock::time_point end;
};

// Collects what threads do and when, while it is switched on. A track is one thread's (or stream's)
// line in the picture: its spans follow each other and do not overlap. Thread-safe; costs one
// atomic read where it is switched off.
class Tracer {
 public:
  // Adds a track, or finds it by name. Call before its thread records.
  [[nodiscard]] int32_t track(const std::string& name);
  void switch_on() noexcept { is_on_ = true; }
  void switch_off() noexcept { is_on_ = false; }
  [[nodiscard]] bool is_on() const noexcept { return is_on_; }
  // Kept where the tracer is on.
  void record(int32_t track, std::string name, std::chrono::steady_clock::time_point begin,
              std::chrono::steady_clock::time_point end);
  [[nodiscard]] std::vector<std::string> tracks() const;
  [[nodiscard]] std::vector<TraceSpan> take();  // And forgets them.

 private:
  std::atomic<bool> is_on_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> tracks_;
  std::vector<TraceSpan> spans_;
};

// A thread's place to record: `tracer` outlives it; null records nothing.
struct TraceTrack {
  Tracer* tracer = nullptr;
  int32_t track = 0;
  void record(std::string name, std::chrono::steady_clock::time_point begin,
              std::chrono::steady_clock::time_point end) const {
    if (tracer != nullptr && tracer->is_on()) tracer->record(track, std::move(name), begin, end);
  }
};
}  // namespace trireme
