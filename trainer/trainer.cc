#include "trainer/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <regex>
#include <utility>

#include "core/log.h"
#include "trainer/batch_tensors.h"
#include "trainer/evaluate/sample_grid.h"
#include "trainer/evaluate/validation.h"
#include "trainer/optim/parameter_groups.h"
#include "trainer/precision.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

Backend backend_of(const std::string& name) {
  if (name == "nccl") return Backend::kNccl;
  if (name == "shm") return Backend::kShm;
  if (name == "mpi") return Backend::kMpi;
  return Backend::kAuto;
}
}  // namespace

Trainer::Trainer(MpiEnvironment& mpi, Session session, Options options)
    : mpi_(mpi),
      session_(std::move(session)),
      options_(std::move(options)),
      config_(session_.config),
      clock_({.tracer = &tracer_, .track = tracer_.track("main thread")}) {
  mpi_.run_on_all_ranks([&] {
    plan_ = plan_run(config_, mpi_.rank(), mpi_.world_size(), session_.num_training());
    scaled_ = scale_learning_rate(config_.optim, plan_.global_batch);
  });
  comm_ = make_communicator(mpi_, {.backend = backend_of(config_.parallel.backend),
                                   .device = cuda_index(session_.device),
                                   .compute_stream = compute_stream_of(session_.device),
                                   .trace = {&tracer_, tracer_.track("communication")}});
  using Order = GlobalBatchSampler::Options::Order;
  sampler_ = std::make_unique<GlobalBatchSampler>(
      session_.dataset->classes(), *session_.split,
      GlobalBatchSampler::Options{
          .seed = config_.run.seed,
          .global_batch = plan_.global_batch,
          .order = config_.data.shuffle ? Order::kShuffled : Order::kByIndex});
  measure_and_allocate();
  if (options_.resume) mpi_.run_on_all_ranks([&] { load_checkpoint(); });
  if (state_.step < plan_.steps) {
    loader_ = std::make_unique<BatchLoader>(
        *session_.dataset, *sampler_,
        BatchLoader::Options{.draw = session_.draw,
                             .first_step = state_.step + 1,
                             .last_step = plan_.steps,
                             .rank_first = plan_.rank_first,
                             .rank_count = plan_.rank_count,
                             .micro = plan_.micro,
                             .trace = {&tracer_, tracer_.track("loader")}});
  }
  first_step_ = state_.step;
  if (mpi_.rank() == 0) {
    log_ =
        std::make_unique<StepLog>(StepLog::Options{.run_dir = options_.run_dir,
                                                   .keep_bytes = state_.metrics_size_bytes,
                                                   .first_step = state_.step,
                                                   .is_resumed = options_.resume.has_value(),
                                                   .num_steps = plan_.steps,
                                                   .global_batch = plan_.global_batch,
                                                   .num_training = session_.num_training(),
                                                   .hyper_parameters = options_.hyper_parameters});
  }
}

Trainer::~Trainer() = default;

NamedParameters Trainer::trainable_parameters() const {
  std::vector<std::regex> frozen;
  for (const auto& pattern : config_.freeze.patterns) {
    try {
      frozen.emplace_back(pattern, std::regex::ECMAScript);
    } catch (const std::regex_error& error) {
      throw UsageError("freeze.patterns: '" + pattern + "' is not a regular expression (" +
                       error.what() + ").");
    }
  }
  NamedParameters trainable;
  for (auto& [name, tensor] : session_.model->named_parameters()) {
    const bool is_frozen =
        std::any_of(frozen.begin(), frozen.end(),
                    [&](const std::regex& pattern) { return std::regex_search(name, pattern); });
    tensor.set_requires_grad(!is_frozen);
    if (!is_frozen) trainable.emplace_back(name, tensor);
  }
  if (trainable.empty()) {
    throw UsageError(
        "freeze.patterns matches every parameter of the model: nothing is left to train.");
  }
  return trainable;
}

void Trainer::measure_and_allocate() {
  NamedParameters trainable;
  std::vector<size_t> order;
  std::vector<int64_t> sizes;
  mpi_.run_on_all_ranks([&] {
    trainable = trainable_parameters();
    auto batch =
        make_training_batch(*session_.dataset, session_.draw, 1, 0, sampler_->draws(1, 0, 1));
    order = measure_gradient_order(trainable, [&] { micro_losses(batch).sum().backward(); });
    for (const auto& [name, tensor] : trainable) sizes.push_back(tensor.numel());
  });
  mpi_.broadcast_bytes(std::as_writable_bytes(std::span(order)));
  buckets_ = std::make_unique<GradientBuckets>(*comm_, trainable, plan_buckets(order, sizes, {}));
  const bool is_tree = config_.parallel.shards > 0;
  reducer_ = std::make_unique<GradientReducer>(
      *comm_, *buckets_, is_tree ? GradientReducer::Mode::kTree : GradientReducer::Mode::kAllReduce,
      is_tree ? static_cast<int>(plan_.pieces_per_rank) : 1);
  for (const auto& bucket : buckets_->flat()) {
    const int64_t share = bucket.params.numel() / comm_->world_size();
    ranges_.push_back(config_.parallel.shard_optimizer
                          ? FlatRange{share * comm_->rank(), share * (comm_->rank() + 1)}
                          : FlatRange{0, bucket.params.numel()});
  }
  mpi_.run_on_all_ranks([&] {
    OptimOptions optim = config_.optim;
    optim.betas = scaled_.betas;
    optim.eps = scaled_.eps;
    assign_parameter_groups(optim, buckets_->flat());
    optimizer_ = make_optimizer(optim, buckets_->flat(), ranges_);
    if (config_.ema.decay > 0) ema_ = std::make_unique<Ema>(config_.ema.decay, buckets_->flat());
  });
}

at::Tensor Trainer::micro_losses(LatentBatch& batch) {
  const BatchTensors tensors = to_device(batch, session_.device);
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

// A rank whose data is bad says so before any rank starts the step's collectives.
void Trainer::fetch_batches() {
  mpi_.run_on_all_ranks([&] {
    batches_.clear();
    const int64_t count = plan_.pieces_per_rank * plan_.micros_per_piece;
    for (int64_t i = 0; i < count; ++i) batches_.push_back(loader_->next());
  });
}

// Each entry is one rank's number plus zeros, so the sum is exact; the last one counts stop
// requests.
void Trainer::agree_on_losses(std::vector<double>& piece_losses) {
  piece_losses.push_back(stop_signal_.requested() ? 1.0 : 0.0);
  mpi_.all_reduce_sum(piece_losses);
  stop_agreed_ = piece_losses.back() > 0.0;
  piece_losses.pop_back();
}

StepResult Trainer::run_step() {
  const int64_t step = state_.step + 1;
  const double data_before = loader_->wait_seconds();
  const auto begin = Clock::now();
  fetch_batches();
  const double data_seconds = loader_->wait_seconds() - data_before;
  const auto data_end = begin + std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(data_seconds));
  clock_.add(Phase::kData, begin, data_end);
  clock_.add(Phase::kWaiting, data_end, Clock::now());
  reducer_->begin_step();
  std::vector<double> piece_losses(static_cast<size_t>(plan_.num_pieces), 0.0);
  auto batch = batches_.begin();
  for (int64_t piece = 0; piece < plan_.pieces_per_rank; ++piece) {
    reducer_->begin_piece();
    at::Tensor piece_loss = torch::zeros({}, torch::dtype(torch::kDouble).device(session_.device));
    for (int64_t micro = 0; micro < plan_.micros_per_piece; ++micro, ++batch) {
      at::Tensor losses;  // (N)
      {
        const auto span = clock_.measure(Phase::kForward);
        losses = micro_losses(*batch);
      }
      const auto span = clock_.measure(Phase::kBackward);
      if (micro + 1 == plan_.micros_per_piece)
        reducer_->arm();  // Its gradients complete the piece.
      (losses.sum() / static_cast<double>(plan_.global_batch)).backward();
      piece_loss += losses.detach().sum(at::kDouble);
    }
    const auto span = clock_.measure(Phase::kBackward);  // Reading the loss waits for the device.
    piece_losses[static_cast<size_t>(mpi_.rank() * plan_.pieces_per_rank + piece)] =
        piece_loss.item<double>();
  }
  {
    const auto span = clock_.measure(Phase::kCommunication);
    reducer_->wait();  // Gradients are now those of the mean loss over the global batch.
  }
  {
    const auto span = clock_.measure(Phase::kWaiting);
    agree_on_losses(piece_losses);
  }
  double loss = 0.0;
  for (const double value : piece_losses) loss += value / static_cast<double>(plan_.global_batch);

  const auto update_begin = Clock::now();
  const double grad_norm = std::sqrt(sum_of_squares(buckets_->flat()).item<double>());
  if (!std::isfinite(loss) ||
      !std::isfinite(grad_norm)) {  // Reduced values: all ranks throw together.
    throw DivergedError(
        "training diverged at step " + std::to_string(step) + ": loss " + std::to_string(loss) +
        ", gradient norm " + std::to_string(grad_norm) +
        ", from finite data. The weights of the last checkpoint are untouched; lower optim.lr, "
        "set optim.max_grad_norm, or lengthen lr_schedule.warmup_steps.");
  }
  const double max_norm = config_.optim.max_grad_norm;
  const double scale = max_norm > 0 ? std::min(1.0, max_norm / (grad_norm + 1e-6)) : 1.0;
  const double lr = learning_rate(config_.lr_schedule, scaled_.lr, step, plan_.steps);
  const torch::NoGradGuard no_grad;
  optimizer_->step(step, lr,
                   torch::full({}, scale, torch::dtype(torch::kFloat32).device(session_.device)));
  if (config_.parallel.shard_optimizer) gather_parameters();
  if (ema_) ema_->update(step);
  clock_.add(Phase::kOptimizer, update_begin, Clock::now());
  state_.step = step;
  state_.samples = step * plan_.global_batch;
  return {.step = step,
          .loss = loss,
          .grad_norm = grad_norm,
          .lr = lr,
          .data_seconds = data_seconds,
          .comm_exposed_seconds = reducer_->exposed_seconds()};
}

void Trainer::gather_parameters() {
  std::vector<std::unique_ptr<Work>> works;
  for (size_t b = 0; b < ranges_.size(); ++b) {
    auto& params = buckets_->flat()[b].params;
    const auto [first, last] = ranges_[b];
    works.push_back(
        comm_->all_gather(view_of(params.narrow(0, first, last - first)), view_of(params)));
  }
  for (const auto& work : works) work->wait();
}

ExitCode Trainer::run() {
  announce();
  note_start();
  const auto begin = Clock::now();
  const ExitCode code = train();
  write_trace();
  report_time(seconds_between(begin, Clock::now()),
              code == ExitCode::kStopped ? "stopped" : "done");
  return code;
}

ExitCode Trainer::train() {
  if (state_.step == 0 && !options_.resume) evaluate();
  auto last_end = Clock::now();
  const auto& early = config_.early_stopping;
  while (state_.step < plan_.steps) {
    follow_trace();
    StepResult result = run_step();
    const auto end = Clock::now();
    result.step_seconds = seconds_between(last_end, end);
    if (log_) log_->step(result);
    const bool is_last = state_.step == plan_.steps;
    if (is_evaluation_due()) evaluate();
    const bool stops_early =
        early.patience > 0 && state_.evaluations_without_improvement >= early.patience;
    const int64_t every = config_.checkpoint.every_steps;
    if (is_last || stop_agreed_ || stops_early || (every > 0 && state_.step % every == 0))
      save_checkpoint();
    if (stop_agreed_ && !is_last) {
      log::info("stopped after step " + std::to_string(state_.step) + " with a checkpoint" +
                (stop_signal_.requested() ? std::string(" (") + stop_signal_.name() + ")"
                                          : std::string()) +
                "; the same command goes on from there");
      return ExitCode::kStopped;
    }
    if (stops_early) {
      if (log_) log_->event(state_.step, "early_stop");
      log::info(early.metric + " has not improved for " + std::to_string(early.patience) +
                " evaluations: stopped early");
      return ExitCode::kDone;
    }
    last_end = Clock::now();
  }
  return ExitCode::kDone;
}

bool Trainer::is_evaluation_due() const {
  const int64_t every = config_.eval.every_steps;
  return every > 0 && (state_.step == plan_.steps || state_.step % every == 0);
}

void Trainer::evaluate() {
  if (config_.eval.every_steps == 0) return;
  const auto span = clock_.measure(Phase::kEvaluation);
  if (log_) log_->activity("step " + std::to_string(state_.step) + ": evaluating");
  if (session_.num_validation() > 0) {
    const ValidationResult raw = evaluate_validation(mpi_, session_);
    std::optional<ValidationResult> averaged;
    if (ema_) {
      ema_->swap();
      averaged = evaluate_validation(mpi_, session_);
      ema_->swap();
    }
    note_for_early_stopping(
        config_.early_stopping.metric == "val_loss_ema" && averaged ? averaged->loss : raw.loss);
    if (log_) log_->evaluation(state_.step, raw, averaged ? &*averaged : nullptr);
  }
  sample();
}

void Trainer::sample() {
  if (config_.sample.count == 0) return;
  if (ema_) ema_->swap();
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld.png", static_cast<long long>(state_.step));
  write_sample_grid(mpi_, session_, options_.run_dir / "samples" / name);
  if (log_) log_->picture(state_.step, "samples", options_.run_dir / "samples" / name);
  if (ema_) ema_->swap();
}

void Trainer::note_for_early_stopping(double metric) {
  const bool improved =
      state_.evaluations == 0 || metric < state_.best_metric - config_.early_stopping.min_delta;
  ++state_.evaluations;
  state_.evaluations_without_improvement =
      improved ? 0 : state_.evaluations_without_improvement + 1;
  if (improved) state_.best_metric = metric;
}
}  // namespace trireme
