#include "trainer/device_facts.h"

#include <torch/version.h>

#include "trainer/torch_api.h"

#ifdef TRIREME_WITH_CUDA
#include <cuda_runtime_api.h>
#include <nccl.h>
#endif

namespace trireme {
namespace {
at::Tensor tensor_of(BufferView buffer, const std::string& device) {
  return at::from_blob(buffer.data, {buffer.num_elements},
                       torch::dtype(torch::kFloat32).device(c10::Device(device)));
}
}  // namespace

void fill_buffer(BufferView buffer, const std::string& device, float value) {
  tensor_of(buffer, device).fill_(value);
}

bool holds_everywhere(BufferView buffer, const std::string& device, float value) {
  return tensor_of(buffer, device).eq(value).all().item<bool>();
}

#ifdef TRIREME_WITH_CUDA
namespace {
// CUDA's versions are 1000 major + 10 minor.
std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string nccl_version(int number) {
  return std::to_string(number / 10000) + "." + std::to_string(number % 10000 / 100) + "." +
         std::to_string(number % 100);
}
}  // namespace

DeviceFacts device_library_facts() {
  DeviceFacts facts{.libtorch = TORCH_VERSION, .cuda_runtime = {}, .cuda_driver = {}, .nccl = {}};
  int number = 0;
  if (cudaRuntimeGetVersion(&number) == cudaSuccess) facts.cuda_runtime = cuda_version(number);
  if (cudaDriverGetVersion(&number) == cudaSuccess && number > 0)
    facts.cuda_driver = cuda_version(number);
  if (ncclGetVersion(&number) == ncclSuccess) facts.nccl = nccl_version(number);
  return facts;
}

std::vector<VisibleGpu> visible_gpus() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return {};
  std::vector<VisibleGpu> gpus;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    VisibleGpu gpu{.name = properties.name,
                   .pci_address = {},
                   .compute_capability =
                       std::to_string(properties.major) + "." + std::to_string(properties.minor),
                   .memory_bytes = static_cast<double>(properties.totalGlobalMem),
                   .is_supported = true,
                   .reaches = {}};
    char address[32] = {};
    if (cudaDeviceGetPCIBusId(address, sizeof address, device) == cudaSuccess)
      gpu.pci_address = address;
    for (int other = 0; other < count; ++other) {
      int can = other == device ? 1 : 0;
      if (other != device) cudaDeviceCanAccessPeer(&can, device, other);
      gpu.reaches.push_back(can != 0);
    }
    try {  // A kernel that this LibTorch has no code for does not start.
      const c10::Device place(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
      (void)(torch::ones({1}, torch::device(place)) + 1).item<float>();
    } catch (const c10::Error&) {
      gpu.is_supported = false;
    }
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}
#else
DeviceFacts device_library_facts() {
  return {.libtorch = TORCH_VERSION, .cuda_runtime = {}, .cuda_driver = {}, .nccl = {}};
}

std::vector<VisibleGpu> visible_gpus() { return {}; }
#endif
}  // namespace trireme
