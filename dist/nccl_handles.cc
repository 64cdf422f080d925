#include "dist/nccl_handles.h"

#include <string>

#include "core/error.h"
#include "dist/call_site.h"

namespace trireme {

void check_cuda(cudaError_t result, std::source_location where) {
  if (result == cudaSuccess) return;
  throw LostError(
      "CUDA failed in " + call_site_text(where) + ": " + cudaGetErrorString(result) +
      ". See nvidia-smi for the state of the GPU (memory in use by others, errors); start the run "
      "again, it goes on from its newest checkpoint.");
}

void check_nccl(ncclResult_t result, ncclComm_t comm, std::source_location where) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  const char* details = ncclGetLastError(comm);
  throw LostError(
      "NCCL failed in " + call_site_text(where) + ": " + ncclGetErrorString(result) +
      (details != nullptr && *details != '\0' ? std::string(" (") + details + ")" : std::string()) +
      ". NCCL_DEBUG=INFO shows more; start the run again, it goes on from its newest checkpoint.");
}

UniqueStream make_high_priority_stream() {
  int least = 0;
  int greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  return UniqueStream(stream);
}

UniqueEvent make_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return UniqueEvent(event);
}
}  // namespace trireme
