#include "trainer/optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/formatted.h"

namespace trireme {
namespace {
constexpr double kDefaultTimescale = 10000.0;  // Of inverse_sqrt without warm-up, as transformers'.

std::string number(double value) { return formatted("%g", value); }

// The multiple of the base rate after the warm-up. u: updates done before this one.
double multiple(const LrScheduleOptions& schedule, double u, double num_steps) {
  const double least = schedule.min_lr_ratio;
  const auto warmup = static_cast<double>(schedule.warmup_steps);
  const double p = std::clamp((u - warmup) / (num_steps - warmup), 0.0, 1.0);
  switch (schedule.name) {
    case LrScheduleName::kConstant:
      return 1.0;
    case LrScheduleName::kLinear:
      return least + (1 - least) * (1 - p);
    case LrScheduleName::kCosine:
      return least + (1 - least) * (1 + std::cos(std::numbers::pi * p)) / 2;
    case LrScheduleName::kCosineWithRestarts: {
      const double turns = p * static_cast<double>(schedule.cycles);
      const double part = p < 1 ? turns - std::floor(turns) : 1.0;
      return least + (1 - least) * (1 + std::cos(std::numbers::pi * part)) / 2;
    }
    case LrScheduleName::kInverseSqrt: {
      const double timescale = schedule.timescale > 0 ? static_cast<double>(schedule.timescale)
                               : warmup > 0           ? warmup
                                                      : kDefaultTimescale;
      return least + (1 - least) * std::sqrt(timescale / (timescale + (u - warmup)));
    }
    case LrScheduleName::kPolynomial:
      return least + (1 - least) * std::pow(1 - p, schedule.power);
    case LrScheduleName::kWsd: {
      const double begin = std::max(warmup, num_steps * (1 - schedule.decay_fraction));
      if (u <= begin || begin >= num_steps) return 1.0;
      return least + (1 - least) * (1 - std::min((u - begin) / (num_steps - begin), 1.0));
    }
  }
  throw InternalError("a learning-rate schedule without formula");
}

// Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms" (2022).
void scale_adam(ScaledOptim& scaled, const OptimOptions& options, double k) {
  for (size_t i = 0; i < scaled.betas.size(); ++i) {
    scaled.betas[i] = 1 - k * (1 - options.betas[i]);
    if (scaled.betas[i] < 0) {
      throw UsageError("optim.lr_scaling = \"sqrt_adam\" makes beta" + std::to_string(i + 1) +
                       " = 1 - " + number(k) + " x (1 - " + number(options.betas[i]) +
                       ") = " + number(scaled.betas[i]) +
                       ", which is below 0. Choose a smaller batch.global, a larger "
                       "optim.lr_base_batch, larger optim.betas, or lr_scaling = \"sqrt\".");
    }
  }
  scaled.eps = options.eps / std::sqrt(k);
}
}  // namespace

ScaledOptim scale_learning_rate(const OptimOptions& options, int64_t global_batch) {
  ScaledOptim scaled{.lr = options.lr, .betas = options.betas, .eps = options.eps, .rule = {}};
  if (options.lr_base_batch <= 0) {
    scaled.rule = number(options.lr) + ", as given (optim.lr_base_batch is not set)";
    return scaled;
  }
  const double k = static_cast<double>(global_batch) / static_cast<double>(options.lr_base_batch);
  const std::string quotient =
      std::to_string(global_batch) + "/" + std::to_string(options.lr_base_batch);
  double factor = k;
  std::string name = "linear";
  std::string formula = quotient;
  switch (options.lr_scaling) {
    case LrScaling::kLinear:
      break;
    case LrScaling::kPower:
      name = "power";
      factor = std::pow(k, options.lr_scaling_power);
      formula = "(" + quotient + ")^" + number(options.lr_scaling_power);
      break;
    case LrScaling::kSqrt:
    case LrScaling::kSqrtAdam:
      name = options.lr_scaling == LrScaling::kSqrt ? "sqrt" : "sqrt_adam";
      factor = std::sqrt(k);
      formula = "sqrt(" + quotient + ")";
      if (options.lr_scaling == LrScaling::kSqrtAdam) scale_adam(scaled, options, k);
  }
  scaled.lr = options.lr * factor;
  scaled.rule = name + ": " + number(options.lr) + " x " + formula + " = " + number(scaled.lr);
  if (options.lr_scaling == LrScaling::kSqrtAdam) {
    scaled.rule += "; betas " + number(scaled.betas[0]) + ", " + number(scaled.betas[1]) +
                   "; eps " + number(scaled.eps);
  }
  return scaled;
}

double learning_rate(const LrScheduleOptions& schedule, double base_lr, int64_t step,
                     int64_t num_steps) {
  check(step >= 1, "updates are counted from 1");
  const auto u = static_cast<double>(step - 1);
  const auto warmup = static_cast<double>(schedule.warmup_steps);
  if (u < warmup) return base_lr * (u + 1) / warmup;
  return base_lr * multiple(schedule, u, static_cast<double>(std::max(num_steps, step)));
}
}  // namespace trireme
