// The part of Trainer that saves and restores it.
#include <algorithm>
#include <string>
#include <utility>

#include "core/log.h"
#include "trainer/diffusion/scheduler_config.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
NamedTensors on_cpu(const NamedTensors& tensors) {
  NamedTensors copies;
  copies.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    copies.emplace_back(
        name, tensor.detach()
                  .to(torch::kCPU, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true)
                  .contiguous());
  }
  return copies;
}

}  // namespace

void Trainer::load_checkpoint() {
  const auto& folder = *options_.resume;
  state_ = open_checkpoint(folder, Verify::kSizes);
  if (state_.samples != plan_.global_batch.samples_after(state_.step)) {
    throw UsageError(
        "the run in " + options_.run_dir.string() + " has a global batch of " +
        std::to_string(state_.samples / std::max<int64_t>(state_.step, 1)) +
        ", this start one of " + std::to_string(plan_.first_batch()) +
        ": batch.per_rank times the number of ranks changed. Start as many ranks as before, or set "
        "batch.global, which holds at any number of ranks.");
  }
  if (ema_) {  // The averages are read where parameters are, and put in their place.
    ema_->swap();
    session_.model->load(folder / "ema");
    ema_->swap();
  }
  session_.model->load(folder / session_.model->layout().folder);
  const SafetensorsReader optimizer(folder / "optimizer.safetensors");
  optimizer_->load_state(optimizer);
  noise_scale_.restore({.signal = state_.noise_scale_signal,
                        .noise = state_.noise_scale_noise,
                        .weight = state_.noise_scale_weight});
  scaler_->restore({.scale = state_.loss_scale, .good_steps = state_.loss_scale_good_steps});
}

// Every rank holds its ranges in zero-filled wholes: their sum is the whole.
NamedTensors Trainer::optimizer_state() {
  NamedTensors state = on_cpu(optimizer_->state());
  if (!config_.parallel.shard_optimizer || mpi_.world_size() == 1) return state;
  for (auto& [name, tensor] : state) {
    if (tensor.scalar_type() != at::kFloat || tensor.dim() == 0) continue;
    auto values = tensor.to(torch::kDouble).contiguous();
    mpi_.all_reduce_sum(std::span(values.data_ptr<double>(), static_cast<size_t>(values.numel())));
    tensor = values.to(torch::kFloat);
  }
  return state;
}

void Trainer::save_checkpoint() {
  if (last_checkpoint_step_ == state_.step) return;
  wait_for_parameters();
  mpi_.run_on_all_ranks([&] {
    if (buckets_->parameters_are_finite()) return;
    throw DivergedError("training diverged: after step " + std::to_string(state_.step) +
                        " some weights are not finite. No checkpoint was written of them; the "
                        "newest one holds finite weights. Lower optim.lr.");
  });
  last_checkpoint_step_ = state_.step;
  const auto span = clock_.measure(Phase::kCheckpoint);
  if (log_) log_->activity("step " + std::to_string(state_.step) + ": writing a checkpoint");
  NamedTensors optimizer = optimizer_state();
  NamedTensors averages;
  if (ema_) {
    // Frozen tensors have no average of their own: their value is the average.
    exchange_average();
    if (mpi_.rank() == 0) averages = on_cpu(session_.model->named_parameters());
    exchange_average();
  }
  state_.noise_scale_signal = noise_scale_.state().signal;
  state_.noise_scale_noise = noise_scale_.state().noise;
  state_.noise_scale_weight = noise_scale_.state().weight;
  state_.loss_scale = scaler_->state().scale;
  state_.loss_scale_good_steps = scaler_->state().good_steps;
  mpi_.run_on_all_ranks([&] {
    if (mpi_.rank() != 0) return;
    log_->sync();
    state_.metrics_size_bytes = log_->size_bytes();
    state_.config_toml = options_.config_toml;
    CheckpointContent content{
        .state = state_,
        .layout = session_.model->layout(),
        .model = on_cpu(session_.model->named_parameters()),
        .ema = std::move(averages),
        .optimizer = std::move(optimizer),
        .extra_files = {{"scheduler/scheduler_config.json",
                         scheduler_config_json(config_.noise, config_.objective.prediction,
                                               session_.sampling)}}};
    const auto folder =
        write_checkpoint(options_.run_dir / "checkpoints", content, config_.checkpoint.keep);
    log::info("checkpoint " + folder.filename().string());
  });
}

// The update of `diverged_step` was not made: where no other one was, the weights are those before.
void Trainer::keep_last_weights(int64_t diverged_step, const std::string& reason) {
  wait_for_parameters();
  if (options_.run_dir.empty()) return;
  if (in_flight_.empty() && diverged_step > 1 && buckets_->parameters_are_finite()) {
    state_.step = diverged_step - 1;
    state_.samples = plan_.global_batch.samples_after(state_.step);
    save_checkpoint();
  }
  if (log_) {
    log_->event(diverged_step - 1, "diverged", JsonLine().add("reason", reason));
  }
}
}  // namespace trireme
