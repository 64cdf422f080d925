#include "trainer/device_trace.h"

#include <set>
#include <string>

#include "trainer/torch_api.h"
// After LibTorch's own headers.
#include <torch/csrc/autograd/profiler_kineto.h>

namespace trireme {
void DeviceTrace::start() {
  if (!is_gpu_) return;
  namespace kineto = torch::profiler::impl;
  const kineto::ProfilerConfig config(kineto::ProfilerState::KINETO);
  const std::set<kineto::ActivityType> activities = {kineto::ActivityType::CUDA};
  torch::autograd::profiler::prepareProfiler(config, activities);
  steady_start_ = std::chrono::steady_clock::now();
  system_start_ = std::chrono::system_clock::now();
  torch::autograd::profiler::enableProfiler(config, activities);
}

void DeviceTrace::stop(Tracer& tracer) {
  if (!is_gpu_) return;
  const auto result = torch::autograd::profiler::disableProfiler();
  const auto start_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(system_start_.time_since_epoch())
          .count();
  const auto moment = [&](uint64_t epoch_ns) {
    return steady_start_ + std::chrono::nanoseconds(static_cast<int64_t>(epoch_ns) - start_ns);
  };
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CUDA) continue;
    const auto track = tracer.track("stream " + std::to_string(event.deviceResourceId()));
    tracer.record(track, event.name(), moment(event.startNs()), moment(event.endNs()));
  }
}
}  // namespace trireme
