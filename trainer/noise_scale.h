#pragma once
#include <optional>

namespace trireme {

// The gradient-noise scale tr(Sigma) / |G|^2 (McCandlish et al., "An Empirical Model of Large-Batch
// Training", 2018, appendix A.1): how large a batch has to grow until its gradient's noise equals
// the gradient. From squared norms of gradients of a small and of a large batch, whose difference
// is noise. Both estimates are unbiased at each step and smoothed separately, since a mean of
// quotients would not be. Local.
class GradientNoiseScale {
 public:
  struct Estimate {
    double signal = 0.0;  // Of |G|^2; may be negative.
    double noise = 0.0;   // Of tr(Sigma), the noise of one sample's gradient; likewise.
  };
  // What a checkpoint keeps: weighted sums of the estimates, and of the weights.
  struct State {
    double signal = 0.0;
    double noise = 0.0;
    double weight = 0.0;
  };
  struct Norms {
    double small_squares = 0.0;  // Mean of |g|^2 over batches of small_batch samples.
    double small_batch = 0.0;
    double large_squares = 0.0;  // |g|^2 of the batch that they make up.
    double large_batch = 0.0;
  };
  // REQUIRES: 0 < small_batch < large_batch.
  [[nodiscard]] static Estimate estimate(const Norms& norms);

  // Nothing is taken in that is not finite.
  void add(const Estimate& estimate);
  // Smoothed tr(Sigma) over smoothed |G|^2; nothing before the first add(), or while the noise
  // hides the gradient so that the estimate of |G|^2 is not positive.
  [[nodiscard]] std::optional<double> value() const;
  [[nodiscard]] const State& state() const noexcept { return state_; }
  void restore(const State& state) noexcept { state_ = state; }

 private:
  State state_;
};
}  // namespace trireme
