#include "core/philox.h"

#include <algorithm>
#include <cmath>

#include "core/vector_math.h"

namespace trireme {
namespace {
constexpr uint32_t kMultiplier0 = 0xD2511F53;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9;
constexpr uint32_t kWeyl1 = 0xBB67AE85;
constexpr int kNumRounds = 10;
constexpr int kLanes = 16;  // Blocks made together: constant trip counts, so loops vectorise.
constexpr int kLaneNormals = 4 * kLanes;

// The words of blocks first_block ... + kLanes - 1, word-major.
[[gnu::always_inline]] inline void philox_lanes(uint32_t first_block,
                                                std::array<uint32_t, 4> counter,
                                                std::array<uint32_t, 2> key,
                                                uint32_t (&words)[4][kLanes]) noexcept {
  for (int i = 0; i < kLanes; ++i) {
    uint64_t c0 = static_cast<uint32_t>(first_block + static_cast<uint32_t>(i));
    uint64_t c1 = counter[1];
    uint64_t c2 = counter[2];
    uint64_t c3 = counter[3];
    uint32_t k0 = key[0];
    uint32_t k1 = key[1];
#pragma GCC unroll 10
    for (int round = 0; round < kNumRounds; ++round) {
      const uint64_t product0 = (c0 & 0xffffffff) * kMultiplier0;
      const uint64_t product1 = (c2 & 0xffffffff) * kMultiplier1;
      c0 = (product1 >> 32) ^ c1 ^ k0;
      c1 = product1 & 0xffffffff;
      c2 = (product0 >> 32) ^ c3 ^ k1;
      c3 = product0 & 0xffffffff;
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    words[0][i] = static_cast<uint32_t>(c0);
    words[1][i] = static_cast<uint32_t>(c1);
    words[2][i] = static_cast<uint32_t>(c2);
    words[3][i] = static_cast<uint32_t>(c3);
  }
}

// kLaneNormals normals, in the order of their blocks.
[[gnu::always_inline]] inline void normal_lanes(uint32_t first_block,
                                                std::array<uint32_t, 4> counter,
                                                std::array<uint32_t, 2> key, float* out) noexcept {
  uint32_t words[4][kLanes];
  philox_lanes(first_block, counter, key, words);
  float normals[4][kLanes];
  for (int pair = 0; pair < 4; pair += 2) {
    double radius[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      // A signed conversion, which SSE2 and AVX2 have: the word minus 2^31, plus 2^31.
      const double word =
          static_cast<double>(static_cast<int32_t>(words[pair][i] ^ 0x80000000U)) + 0x1p31;
      radius[i] = -2.0 * vector_math::log((word + 0.5) * 0x1p-32);
    }
    for (int i = 0; i < kLanes; ++i) radius[i] = std::sqrt(radius[i]);
    for (int i = 0; i < kLanes; ++i) {
      const auto [sine, cosine] = vector_math::sin_cos_turn(words[pair + 1][i]);
      normals[pair][i] = static_cast<float>(radius[i] * cosine);
      normals[pair + 1][i] = static_cast<float>(radius[i] * sine);
    }
  }
  for (int i = 0; i < kLanes; ++i) {
    for (int word = 0; word < 4; ++word) out[4 * i + word] = normals[word][i];
  }
}

[[gnu::always_inline]] inline void fill_normals(std::array<uint32_t, 4> counter,
                                                std::array<uint32_t, 2> key,
                                                std::span<float> out) noexcept {
  uint32_t block = 0;
  while (out.size() >= kLaneNormals) {
    normal_lanes(block, counter, key, out.data());
    out = out.subspan(kLaneNormals);
    block += kLanes;
  }
  if (out.empty()) return;
  float rest[kLaneNormals];
  normal_lanes(block, counter, key, rest);
  std::copy_n(rest, out.size(), out.begin());
}

#if defined(__x86_64__)
// AVX2 without FMA: the same operations four at a time, so the same bits.
[[gnu::target("avx2")]] void fill_normals_avx2(std::array<uint32_t, 4> counter,
                                               std::array<uint32_t, 2> key,
                                               std::span<float> out) noexcept {
  fill_normals(counter, key, out);
}
#endif
}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                   std::array<uint32_t, 2> key) noexcept {
  for (int round = 0; round < kNumRounds; ++round) {
    const uint64_t product0 = uint64_t{counter[0]} * kMultiplier0;
    const uint64_t product1 = uint64_t{counter[2]} * kMultiplier1;
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

PositionRandom::PositionRandom(uint64_t seed, Stream stream, uint64_t epoch,
                               uint64_t sample) noexcept
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      counter_{0, static_cast<uint32_t>(stream),
               static_cast<uint32_t>(epoch + (sample >> 32 << 24)), static_cast<uint32_t>(sample)} {
}

std::array<uint32_t, 4> PositionRandom::words(uint32_t block) const noexcept {
  return philox4x32({block, counter_[1], counter_[2], counter_[3]}, key_);
}

void PositionRandom::normals(std::span<float> out) const noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return fill_normals_avx2(counter_, key_, out);
#endif
  fill_normals(counter_, key_, out);
}
}  // namespace trireme
