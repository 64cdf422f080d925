#include "trainer/trainer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/log.h"
#include "trainer/batch_tensors.h"
#include "trainer/freeze.h"
#include "trainer/model_agreement.h"
#include "trainer/optim/parameter_groups.h"
#include "trainer/precision.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;

ScalarType wire_of(Precision precision) {
  switch (precision) {
    case Precision::kBf16:
      return ScalarType::kBFloat16;
    case Precision::kFp16:
      return ScalarType::kFloat16;
    case Precision::kFp32:
      break;
  }
  return ScalarType::kFloat32;
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
      guard_(config_.divergence, state_),
      clock_({.tracer = &tracer_, .track = tracer_.track("main thread")}),
      device_trace_(session_.device) {
  mpi_.run_on_all_ranks([&] {
    plan_ = plan_run(config_, mpi_.world_size(), session_.num_training());
    scaled_ = scale_learning_rate(config_.optim, plan_.first_batch());
  });
  session_.draw.global_batch = plan_.global_batch;
  session_.prior_draw.global_batch = plan_.global_batch;
  {
    const ThreadsStartOn helpers(options_.helper_cpus);
    comm_ = options_.make_communicator
                ? options_.make_communicator()
                : make_communicator(mpi_, {.backend = backend_of(config_.parallel.backend),
                                           .device = cuda_index(session_.device),
                                           .compute_stream = compute_stream_of(session_.device),
                                           .trace = {&tracer_, tracer_.track("communication")}});
  }
  using Order = GlobalBatchSampler::Options::Order;
  sampler_ = std::make_unique<GlobalBatchSampler>(
      session_.dataset->classes(), *session_.split,
      GlobalBatchSampler::Options{
          .seed = config_.run.seed,
          .global_batch = plan_.global_batch,
          .order = config_.data.shuffle ? Order::kShuffled : Order::kByIndex,
          .repeats = session_.repeats});
  if (session_.prior) prior_sampler_ = make_prior_sampler(session_, plan_.global_batch);
  measure_and_allocate();
  if (options_.resume) mpi_.run_on_all_ranks([&] { load_checkpoint(); });
  if (!config_.scores.metrics.empty() && config_.eval.every_steps > 0) {
    mpi_.run_on_all_ranks([&] { scorer_ = std::make_unique<Scorer>(session_); });
  }
  if (state_.step < plan_.steps) {
    const ThreadsStartOn helpers(options_.helper_cpus);
    loader_ = std::make_unique<BatchLoader>(
        *session_.dataset, *sampler_,
        BatchLoader::Options{.draw = session_.draw,
                             .first_step = state_.step + 1,
                             .last_step = plan_.steps,
                             .rank = mpi_.rank(),
                             .num_ranks = mpi_.world_size(),
                             .micro = plan_.micro,
                             .trace = {&tracer_, tracer_.track("loader")},
                             .prior = prior_source()});
  }
  first_step_ = state_.step;
  if (mpi_.rank() == 0 && !options_.run_dir.empty()) {
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

std::optional<BatchLoader::PriorSource> Trainer::prior_source() const {
  if (!session_.prior) return std::nullopt;
  return BatchLoader::PriorSource{.dataset = session_.prior.get(),
                                  .sampler = prior_sampler_.get(),
                                  .draw = session_.prior_draw,
                                  .first_position = plan_.last_batch(),
                                  .loss_weight = config_.data.prior_weight};
}

NamedParameters Trainer::trainable_parameters() const {
  auto parameters = session_.model->named_parameters();
  std::vector<std::string> names;
  for (const auto& [name, tensor] : parameters) names.push_back(name);
  const std::vector<bool> is_trained = select_trained(names, config_.freeze);
  NamedParameters trainable;
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].second.set_requires_grad(is_trained[i]);
    if (is_trained[i]) trainable.push_back(parameters[i]);
  }
  return trainable;
}

void Trainer::measure_and_allocate() {
  NamedParameters trainable;
  std::vector<size_t> order;
  std::vector<int64_t> sizes;
  mpi_.run_on_all_ranks([&] { trainable = trainable_parameters(); });
  agree_on_model(mpi_, trainable);
  mpi_.run_on_all_ranks([&] {
    auto batch =
        make_training_batch(*session_.dataset, session_.draw, 1, 0, sampler_->draws(1, 0, 1));
    const BatchTensors tensors = to_device(batch, session_.device);
    order =
        measure_gradient_order(trainable, [&] { micro_losses(batch, tensors).sum().backward(); });
    for (const auto& [name, tensor] : trainable) sizes.push_back(tensor.numel());
  });
  const BucketPlan bucket_plan = plan_buckets(order, sizes, {});
  agree_on_buckets(mpi_, trainable, bucket_plan);
  const bool is_sharded = config_.parallel.shard_optimizer;
  using Memory = GradientBuckets::ParameterMemory;
  buckets_ = std::make_unique<GradientBuckets>(
      *comm_, trainable, bucket_plan, is_sharded ? Memory::kCommunicator : Memory::kPrivate);
  const bool is_tree = config_.parallel.shards > 0;
  using Reducer = GradientReducer;
  reducer_ = std::make_unique<Reducer>(
      *comm_, *buckets_,
      Reducer::Options{
          .mode = is_tree ? Reducer::Mode::kTree : Reducer::Mode::kSum,
          .result = is_sharded ? Reducer::Result::kOwnSlice : Reducer::Result::kEverywhere,
          .pieces_per_rank = is_tree ? static_cast<int>(plan_.pieces_per_rank) : 1,
          .wire = wire_of(config_.parallel.reduce_precision)});
  for (const auto& bucket : buckets_->flat()) {
    const int64_t share = bucket.params.numel() / comm_->world_size();
    slices_.push_back({share * comm_->rank(), share * (comm_->rank() + 1)});
    ranges_.push_back(is_sharded ? slices_.back() : FlatRange{0, bucket.params.numel()});
  }
  if (is_sharded) gather_ = std::make_unique<ParameterGather>(*comm_, *buckets_);
  message_ = std::make_unique<StepMessage>(*comm_, session_.device, plan_.num_pieces);
  upload_ = std::make_unique<BatchUpload>(session_.device);
  scaler_ = std::make_unique<LossScaler>(config_.parallel.precision, session_.device);
  mpi_.run_on_all_ranks([&] {
    OptimOptions optim = config_.optim;
    optim.betas = scaled_.betas;
    optim.eps = scaled_.eps;
    assign_parameter_groups(optim, buckets_->flat());
    optimizer_ = make_optimizer(optim, buckets_->flat(), ranges_);
    if (config_.ema.decay > 0) {
      ema_ = std::make_unique<Ema>(config_.ema.decay, buckets_->flat(), ranges_);
    }
  });
}

ExitCode Trainer::run() {
  announce();
  note_start();
  const auto begin = Clock::now();
  const ExitCode code = train();
  write_trace();
  report_time(std::chrono::duration<double>(Clock::now() - begin).count(),
              code == ExitCode::kStopped ? "stopped" : "done");
  return code;
}

bool Trainer::agree_to_stop() {
  std::array<double, 1> requests{wants_to_stop() ? 1.0 : 0.0};
  mpi_.all_reduce_sum(requests);
  return requests[0] > 0.0;
}

// Rank 0's clock decides for all; a step that would end after the limit is not begun.
bool Trainer::wants_to_stop() const {
  if (options_.stop_signal != nullptr && options_.stop_signal->requested()) return true;
  const double limit = config_.run.max_hours * 3600.0;
  const double elapsed = std::chrono::duration<double>(Clock::now() - options_.start).count();
  return mpi_.rank() == 0 && limit > 0 && elapsed + last_step_seconds_ >= limit;
}

std::string Trainer::reason_to_stop() const {
  if (options_.stop_signal != nullptr && options_.stop_signal->requested())
    return std::string(" (") + options_.stop_signal->name() + ")";
  return wants_to_stop() ? " (run.max_hours)" : "";
}

ExitCode Trainer::train() {
  if (state_.step < plan_.steps && agree_to_stop()) {
    log::info("stopped before the first step of this start" + reason_to_stop() +
              "; the same command begins again");
    return ExitCode::kStopped;
  }
  if (state_.step == 0 && !options_.resume) evaluate();
  if (stops_early()) {
    log::info("the run has stopped early at step " + std::to_string(state_.step) +
              "; nothing is left to do (--fresh starts over)");
    return ExitCode::kDone;
  }
  last_end_ = Clock::now();
  // What decides about the next update must have been read before it.
  const size_t may_lag = cuda_index(session_.device) >= 0 && !guard_.may_skip() ? 1 : 0;
  while (state_.step < plan_.steps) {
    follow_trace();
    launch_step();
    while (in_flight_.size() > (is_something_due() || stop_agreed_ ? 0 : may_lag)) record_step();
    const bool is_last = state_.step == plan_.steps;
    metric_.reset();
    if (is_evaluation_due()) evaluate();
    const bool stops = stops_early();
    if (stops && log_) log_->event(state_.step, "early_stop");  // Before it is saved.
    const bool is_regular = is_last || stop_agreed_ || stops || is_checkpoint_due();
    const bool is_best = is_best_to_save(is_regular ? Saves::kAnyway : Saves::kIfBest);
    if (is_regular || is_best) save_checkpoint();
    if (stop_agreed_ && !is_last) {
      log::info("stopped after step " + std::to_string(state_.step) + " with a checkpoint" +
                reason_to_stop() + "; the same command goes on from there");
      return ExitCode::kStopped;
    }
    if (stops) {
      log::info(config_.early_stopping.metric + " has not improved for " +
                std::to_string(config_.early_stopping.patience) + " evaluations: stopped early");
      return ExitCode::kDone;
    }
    if (is_something_due()) last_end_ = Clock::now();
  }
  return ExitCode::kDone;
}

void Trainer::record_step() {
  StepResult result = read_step();
  const auto end = Clock::now();
  result.step_seconds = std::chrono::duration<double>(end - last_end_).count();
  last_end_ = end;
  last_step_seconds_ = result.step_seconds;
  if (log_) log_->step(result);
}
}  // namespace trireme
