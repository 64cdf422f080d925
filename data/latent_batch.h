#pragma once
#include <cstdint>
#include <vector>

namespace trireme {

struct LatentShape {
  int64_t channels = 0;
  int64_t height = 0;
  int64_t width = 0;
  [[nodiscard]] int64_t num_elements() const noexcept { return channels * height * width; }
  friend bool operator==(const LatentShape&, const LatentShape&) = default;
  friend auto operator<=>(const LatentShape&, const LatentShape&) = default;
};

// One draw of a sample: which, and how often it was drawn before.
struct SampleDraw {
  int64_t sample = 0;
  int64_t epoch = 0;
};

// The samples of one forward pass, with all their randomness (docs/randomness.md). Host memory,
// contiguous, made ahead of the step; a pure function of configuration, dataset and position.
struct LatentBatch {
  int64_t step = 0;            // The update it belongs to, from 1. 0 in an evaluation.
  int64_t first_position = 0;  // Global position, in the batch of the step, of the first sample.
  LatentShape shape;
  std::vector<SampleDraw> draws;     // (N)
  std::vector<float> latents;        // (N, C, H, W), scaled: what the model calls x_0
  std::vector<float> noise;          // (N, C, H, W), with its noise offset
  std::vector<int64_t> timesteps;    // (N), in [0, num_timesteps)
  std::vector<double> uniforms;      // (N), in (0, 1): what timesteps were made from; flow's sigma
  int64_t text_length = 0;           // L; 0 where the model takes no text
  int64_t text_width = 0;            // D
  std::vector<float> prompt_embeds;  // (N, L, D)
  int64_t pooled_width = 0;          // P; 0 where the file has none
  std::vector<float> pooled_prompt_embeds;  // (N, P)
  std::vector<float> add_time_ids;          // (N, 6) or empty
  std::vector<int64_t> labels;              // (N) or empty
  double loss_weight = 1.0;                 // Of its samples' losses.
  [[nodiscard]] int64_t num_samples() const noexcept { return static_cast<int64_t>(draws.size()); }
};
}  // namespace trireme
