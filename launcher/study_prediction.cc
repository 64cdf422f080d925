#include "launcher/study_prediction.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "launcher/provenance.h"
#include "study/machine.h"
#include "study/network_cost.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

// By a device as provenance.jsonl has it: "cpu", "NVIDIA H100 80GB HBM3". nullptr where no preset
// is meant; none is of cards on PCIe.
const GpuPreset* preset_of(std::string_view device) {
  std::string word;
  const GpuPreset* found = nullptr;
  for (const char c : std::string(device) + " ") {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      continue;
    }
    if (word == "pcie") return nullptr;
    const auto preset = std::ranges::find(gpu_presets(), word, &GpuPreset::name);
    if (preset != gpu_presets().end()) found = &*preset;
    word.clear();
  }
  return found;
}

// The preset of what all these runs computed on.
std::optional<GpuPreset> machine_of(const StudyRunner& runner,
                                    const std::vector<const StudyRun*>& runs) {
  std::optional<EarlierStart> common;
  for (const auto* run : runs) {
    const auto start = read_start_beside(runner.run_dir(run->spec) / "config.toml");
    if (!start) return std::nullopt;
    if (!common) common = start;
    const bool is_same =
        start->device == common->device && start->cores_per_node == common->cores_per_node;
    if (!is_same) return std::nullopt;
  }
  const GpuPreset* known = common ? preset_of(common->device) : nullptr;
  if (known == nullptr) return std::nullopt;
  GpuPreset preset = *known;
  if (preset.cores_per_node > 0) preset.cores_per_node = common->cores_per_node;
  return preset;
}

bool has_several_ranks(std::span<const RankScaling> rows) {
  return std::ranges::any_of(rows, [&](const auto& row) { return row.ranks != rows[0].ranks; });
}
}  // namespace

std::vector<PredictedScaling> predict_study(const StudyRunner& runner,
                                            const StudyAnalysis& analysis,
                                            std::span<const StudyRun> records) {
  std::span<const RankScaling> measured = analysis.scaling;
  if (measured.empty()) return {};
  const std::string& variant = measured.front().variant;
  const auto others = std::ranges::find_if(
      measured, [&](const RankScaling& row) { return row.variant != variant; });
  measured = measured.first(static_cast<size_t>(others - measured.begin()));
  if (!has_several_ranks(measured)) return {};
  std::vector<const StudyRun*> runs;
  for (const auto& record : records) {
    const bool is_measured =
        record.state == StudyRun::State::kFinished && record.spec.variant == variant;
    if (is_measured) runs.push_back(&record);
  }
  const auto machine = machine_of(runner, runs);
  if (!machine) return {};
  const Config config = runner.config_of(runs.front()->spec);
  fs::path file = config.model.config;
  if (!config.model.weights.empty()) file = fs::path(config.model.weights) / "unet/config.json";
  std::error_code error;
  if (!fs::exists(file, error)) return {};
  const auto json = read_json_object(file, "model config");
  return predict_scaling(count_network(json, file, default_input(json)), *machine, measured);
}
}  // namespace trireme
