#pragma once
#include <string>
#include <vector>

#include "dist/buffer_view.h"

namespace trireme {

// Libraries of this build for devices; versions as "13.0"; empty in a build for CPUs.
struct DeviceFacts {
  std::string libtorch;
  std::string cuda_runtime;
  std::string cuda_driver;  // The newest CUDA that the driver serves; empty without driver.
  std::string nccl;
};
[[nodiscard]] DeviceFacts device_library_facts();

struct VisibleGpu {
  std::string name;
  std::string pci_address;
  std::string compute_capability;  // "9.0"
  double memory_bytes = 0;
  bool is_supported = true;   // Whether this LibTorch has code for it.
  std::vector<bool> reaches;  // Peer access to each visible GPU; itself true.
};
// Starts the CUDA runtime where there are GPUs. Empty in a build for CPUs.
[[nodiscard]] std::vector<VisibleGpu> visible_gpus();

// Memory of `device` ("cpu" or "cuda:N") that a communicator gave out: float32.
void fill_buffer(BufferView buffer, const std::string& device, float value);
[[nodiscard]] bool holds_everywhere(BufferView buffer, const std::string& device, float value);
}  // namespace trireme
