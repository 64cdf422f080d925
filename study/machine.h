#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// The machines that the planner knows. Figures are data sheets' unless the .cc names a source;
// calibration replaces what was measured.

// Constants of NCCL's own model (src/graph/tuning.cc, June 2026) differ by generation.
enum class GpuGeneration { kAmpere, kHopper, kBlackwell, kHost };

struct GpuPreset {
  std::string_view name;
  GpuGeneration generation = GpuGeneration::kHopper;
  double peak_tflops = 0.0;         // Dense 16-bit matrix products.
  double peak_tf32_tflops = 0.0;    // Dense, inputs rounded to TF32.
  double peak_fp32_tflops = 0.0;    // Without tensor cores.
  double memory_gb = 0.0;           // 1e9 bytes.
  double memory_gbps = 0.0;         // GB/s
  double links_gbps = 0.0;          // Bus bandwidth of a ring within a node, GB/s a GPU.
  int gpus_per_node = 8;            // GPUs behind one switch of those links.
  bool has_nvls = false;            // Reduction inside the switch.
  double nic_gbps = 0.0;            // GB/s of network a GPU, each way, by default.
  double compute_efficiency = 0.0;  // Share of the peak that training reaches at large batches.
  double fixed_ms = 0.0;            // Of a step, whatever the batch.
  double price_per_hour = 0.0;      // US dollars a GPU; an assumption, not a quotation.
  int cores_per_node = 0;           // That ranks share; 0: each rank has a GPU of its own.
};

struct NetworkPreset {
  std::string_view name;
  double nic_gbps = 0.0;       // GB/s a GPU, each way.
  double latency_scale = 1.0;  // Of NCCL's network hop, which is InfiniBand's.
};

[[nodiscard]] const std::vector<GpuPreset>& gpu_presets();
[[nodiscard]] const std::vector<NetworkPreset>& network_presets();
// Throws UsageError naming the known ones and the nearest.
[[nodiscard]] const GpuPreset& find_gpu(std::string_view name);
[[nodiscard]] const NetworkPreset& find_network(std::string_view name);
}  // namespace trireme
