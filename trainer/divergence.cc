#include "trainer/divergence.h"

#include <cmath>

#include "core/formatted.h"

namespace trireme {
namespace {
// Part of what divergence.spike_factor means: the averages are exponential, over about 50 updates,
// and nothing is a spike before 20.
constexpr double kDecay = 0.98;
constexpr int64_t kUpdatesBefore = 20;

std::string numbers(double loss, double grad_norm) {
  return formatted("loss %g, gradient norm %g", loss, grad_norm);
}
}  // namespace

bool DivergenceGuard::is_spike(double loss, double grad_norm) const {
  return stands_out(loss, state_.loss_average) || stands_out(grad_norm, state_.grad_norm_average);
}

bool DivergenceGuard::stands_out(double value, double sum_of_average) const {
  if (options_.spike_factor <= 0 || state_.updates < kUpdatesBefore) return false;
  const double weight = 1 - std::pow(kDecay, static_cast<double>(state_.updates));
  return value > options_.spike_factor * sum_of_average / weight;
}

DivergenceGuard::Verdict DivergenceGuard::judge(double loss, double grad_norm) {
  const bool is_finite = std::isfinite(loss) && std::isfinite(grad_norm);
  const bool is_high = is_finite && is_spike(loss, grad_norm);
  if (is_finite && !is_high) {
    state_.loss_average = kDecay * state_.loss_average + (1 - kDecay) * loss;
    state_.grad_norm_average = kDecay * state_.grad_norm_average + (1 - kDecay) * grad_norm;
    state_.skipped_in_a_row = 0;
    ++state_.updates;
    return Verdict::kUpdate;
  }
  reason_ = numbers(loss, grad_norm);
  if (is_high) {
    reason_ += formatted(
        ", more than divergence.spike_factor = %g times the average of the updates before",
        options_.spike_factor);
  }
  if (options_.policy == DivergencePolicy::kStop) return Verdict::kStop;
  if (state_.skipped_in_a_row >= options_.max_skips) {
    reason_ += "; " + std::to_string(state_.skipped_in_a_row) +
               " updates in a row were skipped already (divergence.max_skips)";
    return Verdict::kStop;
  }
  ++state_.skipped;
  ++state_.skipped_in_a_row;
  return Verdict::kSkip;
}
}  // namespace trireme
