// The part of Trainer that makes one update.
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "core/formatted.h"
#include "core/log.h"
#include "trainer/optim/exact_sum.h"
#include "trainer/optim/tensor_norm.h"
#include "trainer/reduce/checksum.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
using Clock = PhaseClock::Clock;
}

at::Tensor Trainer::micro_losses(const LatentBatch& batch, const BatchTensors& tensors) {
  const NoisedBatch noised = add_noise(*session_.schedule, config_.objective, tensors.latents,
                                       tensors.noise, batch.timesteps, batch.uniforms);
  at::Tensor prediction;  // (N, C, H, W)
  {
    const AutocastScope autocast(config_.parallel.precision, session_.device);
    prediction = session_.model->forward(
        noised.latents, noised.model_times, tensors.condition,
        DropoutKey{
            .seed = config_.run.seed, .step = batch.step, .first_position = batch.first_position});
  }
  return sample_losses(prediction, noised);
}

double Trainer::global_batch(int64_t step) const {
  return static_cast<double>(plan_.global_batch.global_batch(step));
}

StepResult Trainer::run_step() {
  launch_step();
  return read_step();
}

void Trainer::launch_step() {
  StepInFlight flight;
  flight.step = state_.step + 1;
  const double base =
      scale_learning_rate(config_.optim, plan_.global_batch.global_batch(flight.step)).lr;
  flight.lr = learning_rate(plan_.lr_schedule, base, flight.step, plan_.steps);
  {
    const auto begin = Clock::now();
    flight.data_seconds = batches_->fetch(flight.step);
    const std::chrono::duration<double> waited(flight.data_seconds);
    const auto data_end = begin + std::chrono::duration_cast<Clock::duration>(waited);
    clock_.add(Phase::kData, begin, data_end);
    clock_.add(Phase::kWaiting, data_end, Clock::now());
  }
  reducer_->begin_step();
  message_->begin();
  for (int64_t piece = 0; piece < plan_.pieces_per_rank; ++piece) {
    accumulate_piece(piece, flight.losses);
  }
  {
    const auto span = clock_.measure(Phase::kCommunication);
    reducer_->wait();  // Gradients are now those of the mean loss over the global batch.
  }
  const auto span = clock_.measure(Phase::kOptimizer);
  update(flight);
  message_->copy_to_host(flight.numbers, scaler_->scale());
  flight.comm_exposed_seconds = reducer_->exposed_seconds();
  if (gather_) flight.comm_exposed_seconds += gather_->take_exposed_seconds();
  state_.step = flight.step;
  state_.samples = plan_.global_batch.samples_after(flight.step);
  in_flight_.push_back(std::move(flight));
}

void Trainer::accumulate_piece(int64_t piece, std::vector<at::Tensor>& losses) {
  const int64_t number = mpi_.rank() * plan_.pieces_per_rank + piece;
  // The noise of gradients shows in the pieces' norms; one piece alone is compared with its first
  // micro-batch.
  at::Tensor squares = message_->piece_squares(number);
  if (plan_.num_pieces > 1) {
    reducer_->observe_pieces([&](size_t bucket, FlatRange part) {
      internal::add_sum_of_squares(buckets_->flat()[bucket].grads, part, squares);
    });
  }
  reducer_->begin_piece();
  const int64_t num_sources = batches_->num_sources();
  const int64_t num_passes = batches_->num_per_piece(state_.step + 1);
  for (int64_t pass = 0; pass < num_passes; ++pass) {
    const auto [batch, tensors] = batches_->next();
    at::Tensor micro_loss;  // (N)
    {
      const auto span = clock_.measure(Phase::kForward);
      micro_loss = micro_losses(batch, tensors);
      wait_for_parameters();  // Forward has used them, but for some that it does without.
    }
    const auto span = clock_.measure(Phase::kBackward);
    if (pass + 1 == num_passes) reducer_->arm();  // Its gradients complete the piece.
    const double weight = batch.loss_weight;
    (micro_loss.sum() * weight * scaler_->scale() / global_batch(state_.step + 1)).backward();
    const torch::NoGradGuard no_grad;
    losses.push_back(micro_loss.detach());
    const at::Tensor sum = losses.back().sum(at::kDouble);
    message_->piece_loss(number).add_(sum, weight);
    if (pass % num_sources == 1) message_->piece_prior_loss(number).add_(sum);
    if (plan_.num_pieces == 1 && pass + 1 == num_sources && num_passes > num_sources) {
      for (const auto& bucket : buckets_->flat()) {
        internal::add_sum_of_squares(bucket.grads, {0, bucket.grads.numel()}, squares);
      }
    }
  }
  reducer_->observe_pieces({});
}

// What multiplies the gradient: clipping, without the loss scale; NaN where nothing is to be
// updated. 0-d float32, on the device.
at::Tensor Trainer::clip_factor() const {
  const at::Tensor norm = message_->squared_norm().sqrt() / scaler_->scale();
  const double max_norm = config_.optim.max_grad_norm;
  const at::Tensor bounded =
      bounds_values() ? message_->bounded_squared_norm().sqrt() / scaler_->scale() : norm;
  const at::Tensor factor =
      max_norm > 0 ? (max_norm / (bounded + 1e-6)).clamp_max(1.0) : torch::ones_like(norm);
  at::Tensor is_usable = norm.isfinite().logical_and(message_->loss_sum().isfinite());
  if (guard_.knows_spikes()) {  // The host decides, so it waits.
    const double loss = message_->loss_sum().item<double>() / global_batch(state_.step + 1);
    if (guard_.is_spike(loss, norm.item<double>())) is_usable = torch::zeros_like(is_usable);
  }
  return torch::where(is_usable, factor / scaler_->scale(),
                      torch::full_like(factor, std::numeric_limits<double>::quiet_NaN()))
      .to(torch::kFloat);
}

// By element, before the norm of what that leaves is taken.
void Trainer::clip_values() {
  const double bound = config_.optim.max_grad_value;
  for (auto& bucket : buckets_->flat()) {
    if (scaler_->is_active()) {
      const at::Tensor scaled = scaler_->scale().to(bucket.grads.scalar_type()) * bound;
      bucket.grads.clamp_(-scaled, scaled);
    } else {
      bucket.grads.clamp_(-bound, bound);
    }
  }
}

// With shard_optimizer only the slice is this rank's: what the others hold is fetched anew.
at::Tensor Trainer::checksum_share(Checksummed what) const {
  const auto& flat = buckets_->flat();
  return gather_ ? checksum_of(flat, slices_, what)
                 : replica_checksum(flat, slices_, mpi_.world_size(), what);
}

void Trainer::update(const StepInFlight& flight) {
  const torch::NoGradGuard no_grad;
  auto& flat = buckets_->flat();
  if (options_.on_summed_gradients) options_.on_summed_gradients(flight.step, flat);
  const bool has_checksums = config_.parallel.shards > 0;
  message_->digits().copy_(squares_digits(flat, slices_));
  if (has_checksums) {
    message_->add_gradient_checksum(checksum_share(Checksummed::kGradients));
  }
  if (bounds_values()) {
    clip_values();
    message_->bounded_digits().copy_(squares_digits(flat, slices_));
  }
  if (stop_request_.is_made_here()) message_->request_stop();
  message_->exchange();

  const at::Tensor factor = clip_factor();
  // Skipped steps do not count: neither for bias correction nor for the ramp of the average.
  const int64_t num_updates = flight.step - state_.skipped;
  optimizer_->step(num_updates, flight.lr, factor);
  scaler_->update(factor.isfinite().logical_not());
  if (has_checksums) {
    message_->add_parameter_checksum(checksum_share(Checksummed::kParameters));
    message_->exchange_parameter_checksum();
  }
  if (gather_) gather_->start();  // The last collective of the step: the next forward hides it.
  if (ema_) ema_->update(num_updates, factor);
}

StepResult Trainer::read_step() {
  check(!in_flight_.empty(), "a step to read");
  StepInFlight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  const auto span = clock_.measure(Phase::kWaiting);
  const auto content = message_->read(flight.numbers, [&] { comm_->check_health(); });
  stop_agreed_ = stop_agreed_ || content.stop;
  StepResult result{.step = flight.step,
                    .lr = flight.lr,
                    .data_seconds = flight.data_seconds,
                    .comm_exposed_seconds = flight.comm_exposed_seconds};
  for (const double piece : content.piece_losses) {
    result.loss += piece / global_batch(flight.step);
  }
  result.loss = unsigned_nan(result.loss);
  if (session_.prior) {
    result.prior_loss = 0.0;
    for (const double piece : content.piece_prior_losses) {
      *result.prior_loss += piece / global_batch(flight.step);
    }
  }
  result.grad_norm = unsigned_nan(std::sqrt(content.squared_norm) / content.loss_scale);
  if (bounds_values()) {
    result.bounded_grad_norm = std::sqrt(content.bounded_squared_norm) / content.loss_scale;
  }
  if (config_.parallel.shards > 0) {
    result.checksums = {.gradients = content.gradient_checksum,
                        .parameters = content.parameter_checksum};
  }
  if (scaler_->is_active()) result.loss_scale = content.loss_scale;
  const bool is_finite = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  if (is_finite) note_noise(content, result);
  // Fp16's gradients may overflow: the update was left out, and the loss scale halved.
  const bool is_overflow =
      scaler_->is_active() && std::isfinite(result.loss) && content.loss_scale > 1.0;
  if (is_finite || !is_overflow) judge(flight, content, result);
  return result;
}

void Trainer::judge(const StepInFlight& flight, const StepMessage::Content& content,
                    const StepResult& result) {
  using Verdict = DivergenceGuard::Verdict;
  const Verdict verdict = guard_.judge(result.loss, result.grad_norm);
  if (verdict == Verdict::kUpdate) return;  // Of reduced values: all ranks agree.
  const std::string step = std::to_string(flight.step);
  const std::string place = locate_divergence(flight, content);
  const std::string reason = guard_.reason() + (place.empty() ? "" : "; " + place);
  if (verdict == Verdict::kSkip) {
    if (mpi_.rank() == 0) log::warn("step " + step + " makes no update: " + reason);
    if (log_) log_->event(flight.step, "skipped_update", JsonLine().add("reason", reason));
    return;
  }
  keep_last_weights(flight.step, reason);
  // Agreed, so that ranks wait for rank 0's record of the end however long it takes.
  mpi_.run_on_all_ranks([&] {
    throw DivergedError(
        "training diverged at step " + step + ": " +
        (place.empty() ? "every number is finite, but stands out" : place) + " (" +
        guard_.reason() +
        "). The data is finite, and the update was not made: the weights are those of the step "
        "before. Look at these samples; lower optim.lr, set optim.max_grad_norm, or lengthen "
        "lr_schedule.warmup_steps, and go on from the last checkpoint.");
  });
}

void Trainer::note_noise(const StepMessage::Content& content, StepResult& result) {
  const bool has_pieces = plan_.num_pieces > 1;
  const int64_t micros_per_piece = plan_.micros_per_piece(result.step);
  if (!has_pieces && micros_per_piece == 1) return;
  double small_squares = 0.0;
  for (const double squares : content.piece_squares) small_squares += squares;
  // Gradients are of sums over samples, divided by the global batch: what a small batch of n gave
  // is n / batch of its mean gradient.
  const auto num_small = static_cast<double>(has_pieces ? plan_.num_pieces : micros_per_piece);
  const double shares = has_pieces ? num_small : 1.0;
  const double batch = global_batch(result.step);
  const double scale = content.loss_scale * content.loss_scale;
  const auto estimate = GradientNoiseScale::estimate(
      {.small_squares = small_squares / shares * num_small * num_small / scale,
       .small_batch = batch / num_small,
       .large_squares = content.squared_norm / scale,
       .large_batch = batch});
  noise_scale_.add(estimate);
  result.noise =
      StepNoise{.signal = estimate.signal, .noise = estimate.noise, .scale = noise_scale_.value()};
}

// The first rank with a loss or gradient that is not finite, and its samples; empty where a step
// only stands out. All ranks know which pieces these are; whose losses they are, only that rank.
// Collective.
std::string Trainer::locate_divergence(const StepInFlight& flight,
                                       const StepMessage::Content& content) {
  const bool is_sum_finite = std::isfinite(content.squared_norm);
  std::vector<int64_t> bad;  // Pieces; of one alone the sum is its gradient.
  for (int64_t piece = 0; piece < plan_.num_pieces; ++piece) {
    const auto index = static_cast<size_t>(piece);
    const bool is_finite =
        std::isfinite(content.piece_losses[index]) &&
        (plan_.num_pieces == 1 ? is_sum_finite : std::isfinite(content.piece_squares[index]));
    if (!is_finite) bad.push_back(piece);
  }
  if (bad.empty()) {
    return is_sum_finite ? "" : "the summed gradient is not finite, though each rank's is";
  }
  const int64_t rank = bad.front() / plan_.pieces_per_rank;
  std::erase_if(bad, [&](int64_t piece) { return piece / plan_.pieces_per_rank != rank; });
  std::string samples;
  if (mpi_.rank() == rank) samples = batches_->describe_bad(flight.step, flight.losses, bad);
  mpi_.broadcast_string(samples, static_cast<int>(rank));
  return "rank " + std::to_string(rank) + " has " + samples;
}

void Trainer::wait_for_parameters() {
  if (gather_) gather_->wait();
}

// Parameters take the values of their averages, or get their own back.
void Trainer::exchange_average() {
  wait_for_parameters();
  ema_->swap();
  if (!gather_) return;
  gather_->start();
  gather_->wait();
}
}  // namespace trireme
