#pragma once
#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "trainer/diffusion/sampling_plan.h"

namespace trireme {

// Everything a sampler needs from outside. Each function takes and gives (N, C, H, W).
struct SamplerCalls {
  // The (guided) model's raw prediction at timestep `time`.
  std::function<at::Tensor(const at::Tensor& x, double time)> model;
  // Standard normals of step `step` (1, 2, ...), for samplers that add noise.
  std::function<at::Tensor(int64_t step)> noise;
  std::function<void(int64_t step)> progress;  // After each step; may be empty.
};

// Denoises: from standard normals (N, C, H, W) to x_0, by the steps of `plan`.
//   ddpm             ancestral sampling (Ho et al., 2020), variance as the plan says
//   ddim             eta = 0 (Song et al., 2021)
//   euler            Euler's method on sigma (Karras et al., 2022, algorithm 2 without churn)
//   euler_ancestral  the same to a lower sigma, then noise up again (Crowson's k-diffusion)
//   heun             Karras et al.'s second-order correction: two model calls a step but for the
//   last dpmpp_2m         DPM-Solver++(2M) (Lu et al., 2022) flow_euler       Euler's method on the
//   probability flow (Lipman et al., 2023)
// Pure but for what `calls` do. Local.
[[nodiscard]] at::Tensor run_sampler(const SamplingPlan& plan, const at::Tensor& noise,
                                     const SamplerCalls& calls);
}  // namespace trireme
