#include "report/metric_reference.h"

#include <algorithm>
#include <regex>

namespace trireme {

const std::vector<MetricInfo>& metric_reference() {
  static const std::vector<MetricInfo> kAll = {
      {"train", "step", "Step", "Updates completed; the first is 1."},
      {"train", "epoch", "Epoch", "Samples / training samples."},
      {"train", "samples", "Samples", "Consumed in all, after the step."},
      {"train", "loss", "Loss", "Mean over the global batch from which the update was made."},
      {"train", "prior_loss", "Loss of the prior set",
       "Unweighted, of the samples for prior preservation; it is part of the loss."},
      {"train", "lr", "Learning rate", "Of the update."},
      {"train", "grad_norm", "Gradient norm", "Of all trained tensors together, before clipping."},
      {"train", "bounded_grad_norm", "Gradient norm, elements bounded",
       "After optim.max_grad_value: what optim.max_grad_norm is held against."},
      {"train", "step_seconds", "Time a step",
       "Wall time between the ends of consecutive steps, without evaluation and checkpoint."},
      {"train", "data_seconds", "Waiting for data", "Part of step_seconds."},
      {"train", "comm_exposed_seconds", "Exposed communication",
       "Part of step_seconds: waiting for communication that backward did not hide."},
      {"train", "images_per_second", "Images a second", "Global batch / step_seconds."},
      {"train", "noise_scale", "Gradient-noise scale",
       "In samples. A batch far below it saves steps in proportion to its size, one far above it "
       "saves none."},
      {"train", "grad_signal", "Gradient signal",
       "Unbiased estimate of the squared norm of the true gradient."},
      {"train", "grad_noise", "Gradient noise",
       "Unbiased estimate of the trace of the gradients' covariance over samples."},
      {"train", "loss_scale", "Loss scale", "By which fp16 gradients were scaled."},
      {"eval", "step", "Step", "Of the weights."},
      {"eval", "val_loss", "Validation loss",
       "On held-out samples, with the same noise every time."},
      {"eval", "val_loss_ema", "Validation loss, averaged weights",
       "As val_loss, with the weights' moving average."},
      {"eval", "val_loss_band_K", "Validation loss by timestep band",
       "Band 0 has the least noise."},
      {"eval", "val_loss_ema_band_K", "Validation loss by timestep band, averaged weights",
       "Band 0 has the least noise."},
      {"eval", "val_samples", "Validation samples", "Over which the losses are means."},
      {"eval", "train_loss_fixed", "Training loss, fixed noise",
       "On training samples, with the same noise every time."},
      {"eval", "train_loss_fixed_ema", "Training loss, fixed noise, averaged weights",
       "As train_loss_fixed, with the weights' moving average."},
      {"eval", "overfit_gap", "Overfit gap",
       "Training minus validation loss with fixed noise: the further below zero, the more the "
       "model "
       "knows its training samples by heart."},
      {"eval", "overfit_gap_ema", "Overfit gap, averaged weights",
       "As overfit_gap, with the weights' moving average."},
      {"eval", "nearest_train_distance", "Distance to the nearest training sample",
       "Mean over samples drawn at the evaluation; near zero they are copies."},
      {"eval", "nearest_train_distance_min", "Least distance to a training sample",
       "Of the samples drawn at the evaluation."},
      {"eval", "memorised_fraction", "Memorised samples",
       "Share of drawn samples that are copies of training samples."},
      {"eval", "fid", "FID",
       "Fréchet distance of Inception features to the reference; lower is better."},
      {"eval", "kid", "KID", "Unbiased kernel distance of Inception features; lower is better."},
      {"eval", "clip_score", "CLIP score", "Agreement of pictures and captions; higher is better."},
      {"eval", "latent_frechet", "Fréchet distance of latents",
       "In the VAE's latent space; compare it with itself only."},
  };
  return kAll;
}

const MetricInfo* metric_info(std::string_view kind, const std::string& name) {
  static const std::regex kBand("_band_[0-9]+$");
  const std::string general = std::regex_replace(name, kBand, "_band_K");
  const auto& all = metric_reference();
  const auto found = std::ranges::find_if(
      all, [&](const MetricInfo& info) { return info.kind == kind && info.name == general; });
  return found == all.end() ? nullptr : &*found;
}
}  // namespace trireme
