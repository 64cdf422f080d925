#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace trireme {

// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as
// 1, 2, 3" (SC'11). Ten rounds on `counter` under `key`.
[[nodiscard]] std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                                 std::array<uint32_t, 2> key) noexcept;

// What a random number decides. Numbers are part of the file format of a run: never renumber.
enum class Stream : uint32_t {
  kTimestep = 1,
  kNoise = 2,
  kAugmentation = 3,
  kCaption = 4,
  kNoiseOffset = 5,
  kPosterior = 8,
  kOrder = 9,  // Permutation of an epoch.
  kValidationSplit = 10,
  kInitialWeights = 11,
  kDropout = 12,
  kSampling = 13,        // Initial noise of generated samples.
  kAdapterWeights = 20,  // First values of an adapter.
  kAdapterDropout = 21,
  kTimestepOffset = 24  // Low-discrepancy timesteps; by step, not by sample.
};

// The random numbers of one (seed, stream, epoch, sample): docs/randomness.md. A value type without
// state; every call is a pure function of its arguments.
class PositionRandom {
 public:
  // REQUIRES: 0 <= epoch < 2^24, 0 <= sample < 2^40.
  PositionRandom(uint64_t seed, Stream stream, uint64_t epoch, uint64_t sample) noexcept;

  // The four words of block `block`.
  [[nodiscard]] std::array<uint32_t, 4> words(uint32_t block = 0) const noexcept;

  // Standard normals from block 0 on, by Box-Muller in double precision, rounded to float.
  void normals(std::span<float> out) const noexcept;

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
};

// Maps a word to (0, 1): (w + 0.5) / 2^32.
[[nodiscard]] constexpr double uniform(uint32_t word) noexcept {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}
}  // namespace trireme
