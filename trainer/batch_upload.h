#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/latent_batch.h"
#include "trainer/batch_tensors.h"

namespace trireme {

// Brings batches to the device ahead of their use: through page-locked memory, double-buffered, on
// a stream of its own, so that neither host nor kernels wait for a copy. On a CPU tensors share the
// batch's memory. Local; use from one thread.
class BatchUpload {
 public:
  explicit BatchUpload(const std::string& device);
  ~BatchUpload();
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;

  // Starts the copy; `batch` must outlive the tensors on a CPU, and this call on a device. At most
  // two batches may be under way.
  void start(LatentBatch& batch);
  // The batch started first: work issued from now on finds it whole.
  [[nodiscard]] BatchTensors take();

 private:
  struct Slot;
  std::string device_;
  std::array<std::unique_ptr<Slot>, 2> slots_;
  size_t started_ = 0;
  size_t taken_ = 0;
};
}  // namespace trireme
