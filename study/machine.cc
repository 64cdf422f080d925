#include "study/machine.h"

#include <algorithm>
#include <string>
#include <thread>

#include "core/error.h"

namespace trireme {
namespace {
template <typename Preset>
const Preset& find_preset(const std::vector<Preset>& presets, std::string_view name,
                          std::string_view option) {
  const auto found = std::ranges::find(presets, name, &Preset::name);
  if (found != presets.end()) return *found;
  std::string known;
  std::vector<std::string> names;
  for (const auto& preset : presets) {
    known += (known.empty() ? "" : ", ") + std::string(preset.name);
    names.emplace_back(preset.name);
  }
  const std::string nearest = nearest_word(name, names);
  throw UsageError(std::string(option) + " '" + std::string(name) + "' is not known; known are " +
                   known + (nearest.empty() ? "." : "; did you mean '" + nearest + "'?"));
}
}  // namespace

// Links: NCCL's constants a link (20, 20.6, 40.1 GB/s) times 12 or 18 links. Efficiency and fixed
// time: Stable Diffusion v2 at 512x512 in MLPerf Training (v4.1 H100, v5.0 H200, B200, GB200) and
// in MosaicML's diffusion repository (A100), fitted as t = fixed + batch x time a sample.
const std::vector<GpuPreset>& gpu_presets() {
  using enum GpuGeneration;
  static const std::vector<GpuPreset> kPresets = {
      {"a100", kAmpere, 312, 156, 19.5, 80, 2039, 240, 8, false, 25, 0.28, 30, 2.0},
      {"h100", kHopper, 989, 494.5, 67, 80, 3350, 370.8, 8, true, 50, 0.37, 26, 3.0},
      {"h200", kHopper, 989, 494.5, 67, 141, 4800, 370.8, 8, true, 50, 0.38, 26, 3.8},
      {"b200", kBlackwell, 2250, 1125, 75, 180, 8000, 721.8, 8, true, 50, 0.34, 17, 5.5},
      {"gb200", kBlackwell, 2500, 1250, 80, 186, 8000, 721.8, 72, true, 50, 0.33, 18, 7.0},
      // Ranks on the cores of this machine: calibrate (docs/plan.md). Links: gradients resident in
      // shared memory, two ranks (docs/bench.md's machine).
      {"cpu", kHost, 0.1, 0.1, 0.1, 8, 20, 17, 1 << 20, false, 1.25, 0.5, 5, 0.05,
       static_cast<int>(std::thread::hardware_concurrency())},
  };
  return kPresets;
}

const std::vector<NetworkPreset>& network_presets() {
  static const std::vector<NetworkPreset> kPresets = {
      {"infiniband-ndr", 50.0, 1.0}, {"infiniband-hdr", 25.0, 1.0}, {"infiniband-xdr", 100.0, 1.0},
      {"efa-400g", 50.0, 3.0},       {"ethernet-400g", 50.0, 2.0},  {"ethernet-100g", 12.5, 2.0},
      {"ethernet-25g", 3.125, 3.0},  {"ethernet-10g", 1.25, 4.0},
  };
  return kPresets;
}

const GpuPreset& find_gpu(std::string_view name) {
  return find_preset(gpu_presets(), name, "--gpu-type");
}

const NetworkPreset& find_network(std::string_view name) {
  return find_preset(network_presets(), name, "--network");
}
}  // namespace trireme
