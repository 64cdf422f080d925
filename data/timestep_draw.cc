#include "data/timestep_draw.h"

#include <algorithm>
#include <cmath>

#include "core/normal_quantile.h"
#include "core/philox.h"
#include "core/vector_math.h"

namespace trireme {
namespace {
// u0 + position / global batch, modulo 1: as evenly spread over a batch as can be, whatever u0.
double low_discrepancy_uniform(uint64_t seed, const BatchPosition& at) {
  const auto step = static_cast<uint64_t>(at.step);
  const auto words =
      philox4x32({static_cast<uint32_t>(step >> 32), static_cast<uint32_t>(Stream::kTimestepOffset),
                  static_cast<uint32_t>(step), 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const double sum =
      uniform(words[0]) + static_cast<double>(at.position) / static_cast<double>(at.global_batch);
  return std::clamp(sum < 1.0 ? sum : sum - 1.0, 0x1p-33, 1.0 - 0x1p-33);
}
}  // namespace

TimestepDraw draw_timestep(const TimestepOptions& options, uint64_t seed, const SampleDraw& draw,
                           const BatchPosition& position) {
  using Options = TimestepOptions;
  const auto& [low, high] = options.range;
  const auto timesteps = options.num_timesteps;
  double x = 0.0;
  if (options.sampling == Options::Sampling::kLowDiscrepancy) {
    x = low_discrepancy_uniform(seed, position);
  } else {
    const uint32_t word = PositionRandom(seed, Stream::kTimestep, static_cast<uint64_t>(draw.epoch),
                                         static_cast<uint64_t>(draw.sample))
                              .words()[0];
    x = uniform(word);
    const bool is_plain =
        options.distribution == Options::Distribution::kUniform && low == 0.0 && high == 1.0;
    if (is_plain) {  // In integers: floor(word x timesteps / 2^32).
      return {static_cast<int64_t>(uint64_t{word} * static_cast<uint64_t>(timesteps) >> 32), x};
    }
  }
  if (options.distribution == Options::Distribution::kLogitNormal) {
    x = 1 / (1 + vector_math::exp(-(options.logit_mean + options.logit_std * normal_quantile(x))));
  }
  x = low + (high - low) * x;
  const auto timestep = static_cast<int64_t>(std::floor(static_cast<double>(timesteps) * x));
  return {std::clamp<int64_t>(timestep, 0, timesteps - 1), x};
}
}  // namespace trireme
