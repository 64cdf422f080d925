#pragma once
#include <chrono>
#include <string>

#include "core/tracer.h"

namespace trireme {

// What a GPU's streams do, kernel by kernel and copy by copy, as LibTorch's profiler (Kineto)
// records it: a track a stream. Does nothing on a CPU. Local; one at a time in a process.
class DeviceTrace {
 public:
  explicit DeviceTrace(const std::string& device) : is_gpu_(device.starts_with("cuda")) {}
  void start();
  void stop(Tracer& tracer);  // Waits for the device. REQUIRES: the tracer is on.

 private:
  bool is_gpu_;
  // The same moment by both clocks: the profiler counts from the epoch.
  std::chrono::steady_clock::time_point steady_start_;
  std::chrono::system_clock::time_point system_start_;
};
}  // namespace trireme
