#pragma once
#include <memory>
#include <vector>

#include "dist/communicator.h"
#include "trainer/reduce/gradient_buckets.h"

namespace trireme {

// Brings parameters of which each rank updated its own slice of every bucket back to all ranks,
// while the next forward pass runs (Rajbhandari et al., "ZeRO", 2020, stage 1).
//
// Between start() and wait() an operator of this thread that takes a parameter, or a view of one,
// first waits for that parameter's bucket; buckets travel in the order in which forward takes them.
// Whatever else reads parameters (a checkpoint, another thread, raw pointers) calls wait() before.
// `comm` and `buckets` outlive it. Use from one thread.
class ParameterGather {
 public:
  ParameterGather(Communicator& comm, GradientBuckets& buckets);
  ~ParameterGather();
  ParameterGather(const ParameterGather&) = delete;
  ParameterGather& operator=(const ParameterGather&) = delete;

  void start();  // Collective.
  void wait();   // All parameters are whole. Nothing happens where nothing is in flight.
  // Seconds that start()..wait() stood still since the last call of this.
  [[nodiscard]] double take_exposed_seconds() noexcept;

  // For the operator hook: waits for the buckets that `tensor` lies in.
  void wait_for(const at::Tensor& tensor);

 private:
  void finish(size_t bucket);
  void stop_watching() noexcept;

  Communicator& comm_;
  GradientBuckets& buckets_;
  std::vector<std::unique_ptr<Work>> works_;
  size_t num_in_flight_ = 0;
  uint64_t watch_ = 0;  // The hook's handle; 0: none.
  double exposed_seconds_ = 0.0;
};
}  // namespace trireme
