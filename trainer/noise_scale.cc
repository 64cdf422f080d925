#include "trainer/noise_scale.h"

#include <cmath>

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kKeep = 0.99;  // Weight of the past: the last hundred steps or so count.
}

GradientNoiseScale::Estimate GradientNoiseScale::estimate(const Norms& norms) {
  const double small = norms.small_batch;
  const double large = norms.large_batch;
  check(0 < small && small < large, "a smaller and a larger batch");
  return {.signal = (large * norms.large_squares - small * norms.small_squares) / (large - small),
          .noise = (norms.small_squares - norms.large_squares) / (1.0 / small - 1.0 / large)};
}

void GradientNoiseScale::add(const Estimate& estimate) {
  if (!std::isfinite(estimate.signal) || !std::isfinite(estimate.noise)) return;
  state_.signal = kKeep * state_.signal + (1 - kKeep) * estimate.signal;
  state_.noise = kKeep * state_.noise + (1 - kKeep) * estimate.noise;
  state_.weight = kKeep * state_.weight + (1 - kKeep);
}

std::optional<double> GradientNoiseScale::value() const {
  if (state_.weight == 0.0 || state_.signal <= 0.0) return std::nullopt;
  return state_.noise / state_.signal;
}
}  // namespace trireme
