#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/models/diffusion_model.h"
#include "trainer/models/safetensors.h"

namespace trireme {

// What a checkpoint holds beside weights (docs/checkpoint_format.md).
struct CheckpointState {
  int64_t step = 0;
  int64_t samples = 0;              // Consumed in all.
  uint64_t metrics_size_bytes = 0;  // Length of metrics.jsonl at the checkpoint.
  std::string config_toml;          // The resolved configuration.
  double best_metric = 0.0;         // Early stopping's memory; meaningless when evaluations is 0.
  int64_t evaluations = 0;
  int64_t evaluations_without_improvement = 0;
  bool owes_evaluation = false;  // A stop left that of this step to the next start.
  // Smoothed gradient-noise statistics (trainer/noise_scale.h), and fp16's loss scale.
  double noise_scale_signal = 0.0;
  double noise_scale_noise = 0.0;
  double noise_scale_weight = 0.0;
  double loss_scale = 65536.0;
  int64_t loss_scale_good_steps = 0;
  int64_t best_step = 0;  // Of the best checkpoint; 0: none yet.
  double best_step_metric = 0.0;
  // Steps judged for divergence (trainer/divergence.h): updates made, and steps skipped.
  int64_t updates = 0;
  int64_t skipped = 0;
  int64_t skipped_in_a_row = 0;
  double loss_average = 0.0;  // Exponential sums over updates, for loss spikes.
  double grad_norm_average = 0.0;
};

struct CheckpointContent {
  CheckpointState state;
  WeightsLayout layout;  // Of the model's folder, and of ema/.
  NamedTensors model;    // float32, CPU
  NamedTensors ema;      // empty: none
  NamedTensors optimizer;
  // Small JSON files of the base model kept with the checkpoint, "scheduler/scheduler_config.json"
  // -> text.
  std::vector<std::pair<std::string, std::string>> extra_files;
};

// Writes `checkpoints`/step-XXXXXXXX whole or not at all (beside, synced, renamed), points `latest`
// at it by rename, and `best` at that of state.best_step, and deletes all but that and the newest
// `keep`. Rank 0 only. Throws UsageError.
std::filesystem::path write_checkpoint(const std::filesystem::path& checkpoints,
                                       const CheckpointContent& content, int64_t keep);

// A checkpoint found whole: manifest present, every file with the size it names (checksums too when
// `verify` is kChecksums). Throws InputError saying what is wrong.
enum class Verify { kSizes, kChecksums };
[[nodiscard]] CheckpointState open_checkpoint(const std::filesystem::path& folder, Verify verify);

// The newest whole checkpoint; unusable newer ones are warned of and passed over. nullopt: none.
[[nodiscard]] std::optional<std::filesystem::path> newest_checkpoint(
    const std::filesystem::path& checkpoints);
}  // namespace trireme
