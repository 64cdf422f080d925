#pragma once
#include <source_location>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "core/handle.h"

// Internal to dist/, only in builds with CUDA: brings the CUDA and NCCL headers along.
namespace trireme {

// Throw LostError with the library's own text and the place unless `result` is a success. For NCCL
// ncclInProgress is one as well: the caller then waits for the communicator to settle.
void check_cuda(cudaError_t result, std::source_location where = std::source_location::current());
void check_nccl(ncclResult_t result, ncclComm_t comm,
                std::source_location where = std::source_location::current());

struct StreamDeleter {
  static cudaStream_t null() { return nullptr; }
  static void destroy(cudaStream_t stream) noexcept { cudaStreamDestroy(stream); }
};
using UniqueStream = UniqueHandle<cudaStream_t, StreamDeleter>;

struct EventDeleter {
  static cudaEvent_t null() { return nullptr; }
  static void destroy(cudaEvent_t event) noexcept { cudaEventDestroy(event); }
};
using UniqueEvent = UniqueHandle<cudaEvent_t, EventDeleter>;

struct DeviceMemoryDeleter {
  static void* null() { return nullptr; }
  static void destroy(void* memory) noexcept { cudaFree(memory); }
};
using UniqueDeviceMemory = UniqueHandle<void*, DeviceMemoryDeleter>;

[[nodiscard]] UniqueStream make_high_priority_stream();
[[nodiscard]] UniqueEvent make_event();  // Without timing.
}  // namespace trireme
