#include "trainer/diffusion/sampling_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kAlphaOfNone = 0x1p-24;  // Where alphas_cumprod is 0: a sigma is finite.
constexpr double kKarrasRho = 7.0;        // Karras et al. (2022), appendix D.1.

bool works_on_sigmas(SamplerName sampler) {
  return sampler == SamplerName::kEuler || sampler == SamplerName::kEulerAncestral ||
         sampler == SamplerName::kHeun || sampler == SamplerName::kDpmpp2m;
}

NoiseLevel level_of_alpha(double alpha) {
  return {.signal = std::sqrt(alpha), .spread = std::sqrt(1 - alpha), .scale = std::sqrt(alpha)};
}

NoiseLevel level_of_sigma(double sigma) {
  const double signal = 1 / std::sqrt(1 + sigma * sigma);
  return {.signal = signal, .spread = sigma * signal, .scale = signal};
}

NoiseLevel level_of_flow(double sigma) {
  return {.signal = 1 - sigma, .spread = sigma, .scale = 1.0};
}

// `count` numbers from first to last, as numpy.linspace makes them.
std::vector<double> linspace(double first, double last, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count), first);
  for (int64_t i = 1; i < count; ++i) {
    const double step = (last - first) / static_cast<double>(count - 1);
    values[static_cast<size_t>(i)] = first + static_cast<double>(i) * step;
  }
  if (count > 1) values.back() = last;
  return values;
}

class Planner {
 public:
  Planner(const SampleOptions& options, const SamplingRules& rules, const NoiseSchedule& schedule,
          SamplerName sampler)
      : options_(options), rules_(rules), schedule_(schedule), sampler_(sampler) {
    spacing_ = options.timestep_spacing;
    if (spacing_ == TimestepSpacing::kAuto) {
      spacing_ = rules.timestep_spacing.value_or(
          works_on_sigmas(sampler) ? TimestepSpacing::kLinspace : TimestepSpacing::kLeading);
    }
    is_karras_ = options.sigmas == SigmaSpacing::kKarras ||
                 (options.sigmas == SigmaSpacing::kAuto && rules.use_karras_sigmas.value_or(false));
  }

  // The ancestral and the exact posterior step need no grid of sigmas: levels by timestep.
  [[nodiscard]] std::vector<SamplingStep> discrete_steps() const {
    const auto& alphas = schedule_.alphas_cumprod();
    const auto timesteps = spaced_timesteps();
    const int64_t stride = schedule_.num_timesteps() / options_.steps;
    const double last = rules_.set_alpha_to_one.value_or(true) ? 1.0 : alphas.front();
    std::vector<SamplingStep> steps;
    for (size_t i = 0; i < timesteps.size(); ++i) {
      const auto t = static_cast<int64_t>(std::nearbyint(timesteps[i]));
      double alpha_next = 1.0;
      if (sampler_ == SamplerName::kDdim) {
        alpha_next = t >= stride ? alphas[static_cast<size_t>(t - stride)] : last;
      } else if (i + 1 < timesteps.size()) {
        alpha_next = alphas[static_cast<size_t>(std::nearbyint(timesteps[i + 1]))];
      }
      steps.push_back({.time = static_cast<double>(t),
                       .from = level_of_alpha(alphas[static_cast<size_t>(t)]),
                       .to = level_of_alpha(alpha_next)});
    }
    return steps;
  }

  [[nodiscard]] std::vector<SamplingStep> sigma_steps() const {
    std::vector<double> times = spaced_timesteps();
    const std::vector<double> table = sigma_table();
    std::vector<double> sigmas;
    for (const double time : times) sigmas.push_back(interpolate(table, time));
    if (is_karras_) {
      const bool whole = sampler_ == SamplerName::kDpmpp2m;  // From the table's ends.
      sigmas = karras_sigmas(whole ? table.back() : sigmas.front(),
                             whole ? table.front() : sigmas.back());
      times.clear();
      for (const double sigma : sigmas) times.push_back(karras_time(table, sigma));
    }
    const bool ends_above_zero =
        rules_.final_sigmas_type == SamplingRules::FinalSigma::kSigmaMin &&
        (sampler_ == SamplerName::kEuler || sampler_ == SamplerName::kDpmpp2m);
    sigmas.push_back(ends_above_zero ? table.front() : 0.0);
    std::vector<SamplingStep> steps;
    for (size_t i = 0; i < times.size(); ++i) {
      steps.push_back({.time = times[i],
                       .from = level_of_sigma(sigmas[i]),
                       .to = level_of_sigma(sigmas[i + 1])});
    }
    // Euler's result is its own x, unshrunk.
    if (sampler_ == SamplerName::kEuler) {
      steps.back().to = {.signal = 1.0, .spread = sigmas.back(), .scale = 1.0};
    }
    return steps;
  }

  // FlowMatchEulerDiscreteScheduler's sigmas, whose lower end is shifted twice; or those of
  // DPMSolverMultistepScheduler with use_flow_sigmas, at whole timesteps.
  [[nodiscard]] std::vector<SamplingStep> flow_steps() const {
    const bool multistep = sampler_ == SamplerName::kDpmpp2m;
    const auto num_timesteps = static_cast<double>(schedule_.num_timesteps());
    std::vector<double> sigmas;
    if (multistep) {
      sigmas = linspace(1.0, 1 / num_timesteps, options_.steps + 1);  // Of the signal first.
      for (double& sigma : sigmas) sigma = 1 - sigma;
      std::ranges::reverse(sigmas);
      sigmas.pop_back();
    } else {
      sigmas = linspace(1.0, shifted(1 / num_timesteps), options_.steps);
    }
    for (double& sigma : sigmas) sigma = shifted(sigma);
    sigmas.push_back(0.0);
    std::vector<SamplingStep> steps;
    for (int64_t i = 0; i < options_.steps; ++i) {
      const double sigma = sigmas[static_cast<size_t>(i)];
      const double time = sigma * num_timesteps;
      steps.push_back({.time = multistep ? std::trunc(time) : time,
                       .from = level_of_flow(sigma),
                       .to = level_of_flow(sigmas[static_cast<size_t>(i) + 1])});
    }
    return steps;
  }

  // What diffusers multiplies the noise by, over what a model call divides it by.
  [[nodiscard]] double initial_scale(const SamplingStep& first) const {
    const bool by_sigma = works_on_sigmas(sampler_) && sampler_ != SamplerName::kDpmpp2m;
    return by_sigma && spacing_ != TimestepSpacing::kLeading ? first.from.spread : 1.0;
  }

 private:
  [[nodiscard]] std::vector<double> spaced_timesteps() const {
    const int64_t count = schedule_.num_timesteps();
    const auto top = static_cast<double>(count);
    // DPM-Solver counts the end as one more point.
    const int64_t points = options_.steps + (sampler_ == SamplerName::kDpmpp2m ? 1 : 0);
    std::vector<double> timesteps;
    if (spacing_ == TimestepSpacing::kTrailing) {
      const double stride = top - (top - top / static_cast<double>(options_.steps));  // As arange.
      for (int64_t i = 0; i < options_.steps; ++i) {
        const double place = std::nearbyint(top - static_cast<double>(i) * stride);
        timesteps.push_back(std::max(place - 1, 0.0));
      }
      return timesteps;
    }
    if (spacing_ == TimestepSpacing::kLinspace) {
      const bool rounds = !works_on_sigmas(sampler_) || sampler_ == SamplerName::kDpmpp2m;
      timesteps = linspace(0.0, top - 1, points);
      for (double& t : timesteps) t = rounds ? std::nearbyint(t) : static_cast<float>(t);
    } else {
      const auto offset = static_cast<double>(rules_.steps_offset.value_or(0));
      const int64_t stride = count / points;
      for (int64_t i = 0; i < points; ++i) {
        timesteps.push_back(std::min(static_cast<double>(i * stride) + offset, top - 1));
      }
    }
    std::ranges::reverse(timesteps);
    timesteps.resize(static_cast<size_t>(options_.steps));
    return timesteps;
  }

  // By timestep, rising.
  [[nodiscard]] std::vector<double> sigma_table() const {
    std::vector<double> sigmas;
    for (const double alpha : schedule_.alphas_cumprod()) {
      const double signal = alpha == 0.0 ? kAlphaOfNone : alpha;
      sigmas.push_back(std::sqrt((1 - signal) / signal));
    }
    return sigmas;
  }

  [[nodiscard]] static double interpolate(const std::vector<double>& table, double place) {
    const auto low = std::min(static_cast<size_t>(place), table.size() - 1);
    const size_t high = std::min(low + 1, table.size() - 1);
    return table[low] + (table[high] - table[low]) * (place - static_cast<double>(low));
  }

  [[nodiscard]] std::vector<double> karras_sigmas(double sigma_max, double sigma_min) const {
    const double from = std::pow(sigma_max, 1 / kKarrasRho);
    const double to = std::pow(sigma_min, 1 / kKarrasRho);
    std::vector<double> sigmas = linspace(0.0, 1.0, options_.steps);
    for (double& ramp : sigmas) ramp = std::pow(from + ramp * (to - from), kKarrasRho);
    return sigmas;
  }

  // The timestep of a sigma, linear in its logarithm; DPM-Solver's are whole.
  [[nodiscard]] double karras_time(const std::vector<double>& table, double sigma) const {
    const double value = std::log(std::max(sigma, 1e-10));
    size_t low = 0;
    while (low + 2 < table.size() && std::log(table[low + 1]) <= value) ++low;
    const double below = std::log(table[low]);
    const double above = std::log(table[std::min(low + 1, table.size() - 1)]);
    const double share =
        above > below ? std::clamp((value - below) / (above - below), 0.0, 1.0) : 0.0;
    const double time = static_cast<double>(low) + share;
    if (sampler_ != SamplerName::kDpmpp2m) return time;
    return schedule_.is_squared_cosine() ? std::trunc(time) : std::nearbyint(time);
  }

  [[nodiscard]] double shifted(double sigma) const {
    const double shift = rules_.shift.value_or(1.0);
    return shift * sigma / (1 + (shift - 1) * sigma);
  }

  const SampleOptions& options_;
  const SamplingRules& rules_;
  const NoiseSchedule& schedule_;
  SamplerName sampler_;
  TimestepSpacing spacing_;
  bool is_karras_ = false;
};

void check_settings(const SampleOptions& options, const NoiseSchedule& schedule,
                    SamplerName sampler, Prediction prediction) {
  if (options.steps < 1 || options.steps > schedule.num_timesteps()) {
    throw UsageError("sample.steps = " + std::to_string(options.steps) + " is not in 1 ... " +
                     std::to_string(schedule.num_timesteps()) +
                     ", the timesteps of the noise schedule.");
  }
  const bool has_sigmas = works_on_sigmas(sampler) && sampler != SamplerName::kEulerAncestral &&
                          prediction != Prediction::kFlow;
  if (options.sigmas == SigmaSpacing::kKarras && !has_sigmas) {
    throw UsageError(
        "sample.sigmas = \"karras\" is for sample.sampler = \"euler\", \"heun\" and \"dpmpp_2m\" "
        "of models that do not predict flow. Leave it \"auto\", or choose one of these samplers.");
  }
}
}  // namespace

SamplingRules SamplingRules::of_trireme(const NoiseOptions& noise, Prediction prediction) {
  // Epsilon says nothing where there is no signal left, so it never starts from there.
  const bool trails = noise.rescale_zero_terminal_snr && prediction != Prediction::kEpsilon;
  return {.timestep_spacing = trails ? TimestepSpacing::kTrailing : TimestepSpacing::kLeading,
          .steps_offset = 1,
          .set_alpha_to_one = false,
          .use_karras_sigmas = {},
          .final_sigmas_type = {},
          .variance_type = {},
          .shift = {}};
}

SamplerName resolve_sampler(SamplerName sampler, Prediction prediction) {
  const bool is_flow = prediction == Prediction::kFlow;
  switch (sampler) {
    case SamplerName::kAuto:
      return is_flow ? SamplerName::kFlowEuler : SamplerName::kDdim;
    case SamplerName::kEuler:
      return is_flow ? SamplerName::kFlowEuler : SamplerName::kEuler;
    case SamplerName::kFlowEuler:
      if (is_flow) return sampler;
      throw UsageError(
          "sample.sampler = \"flow_euler\" is for models whose objective.prediction is \"flow\". "
          "Use \"euler\" here.");
    case SamplerName::kDdpm:
    case SamplerName::kDdim:
    case SamplerName::kEulerAncestral:
      if (!is_flow) return sampler;
      throw UsageError(
          "sample.sampler: ddpm, ddim and euler_ancestral are not defined for a model that "
          "predicts flow. Use \"flow_euler\", \"heun\" or \"dpmpp_2m\".");
    default:
      return sampler;
  }
}

SamplingPlan plan_sampling(const SampleOptions& options, const SamplingRules& rules,
                           const NoiseSchedule& schedule, Prediction prediction) {
  SamplingPlan plan;
  plan.sampler = resolve_sampler(options.sampler, prediction);
  plan.prediction = prediction;
  plan.variance = rules.variance_type.value_or(SamplingRules::Variance::kFixedSmall);
  check_settings(options, schedule, plan.sampler, prediction);
  const Planner planner(options, rules, schedule, plan.sampler);
  if (prediction == Prediction::kFlow) {
    plan.steps = planner.flow_steps();
    return plan;
  }
  plan.steps = works_on_sigmas(plan.sampler) ? planner.sigma_steps() : planner.discrete_steps();
  plan.initial_scale = planner.initial_scale(plan.steps.front());
  return plan;
}
}  // namespace trireme
