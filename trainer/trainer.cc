#include "trainer/trainer.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "core/log.h"
#include "trainer/batch_tensors.h"
#include "trainer/freeze.h"
#include "trainer/in_touch.h"
#include "trainer/model_agreement.h"
#include "trainer/optim/parameter_groups.h"
#include "trainer/precision.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;
using Saves = MetricWatch::Saves;

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

// The model's parameters that config.freeze leaves to be trained; the others need no gradient.
NamedParameters choose_trained(const Session& session) {
  auto parameters = session.model->named_parameters();
  std::vector<std::string> names;
  for (const auto& [name, tensor] : parameters) names.push_back(name);
  const std::vector<bool> is_trained = select_trained(names, session.config.freeze);
  NamedParameters trained;
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].second.set_requires_grad(is_trained[i]);
    if (is_trained[i]) trained.push_back(parameters[i]);
  }
  return trained;
}
}  // namespace

Trainer::Trainer(MpiEnvironment& mpi, Session session, Options options)
    : mpi_(mpi),
      session_(std::move(session)),
      options_(std::move(options)),
      config_(session_.config),
      trace_(mpi_, config_.trace, session_.device, options_.run_dir),
      guard_(config_.divergence, state_),
      watch_(config_, state_),
      stop_request_(mpi_, {.signal = options_.stop_signal,
                           .max_hours = config_.run.max_hours,
                           .start = options_.start}),
      clock_(trace_.track("main thread")) {
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
                                           .trace = trace_.track("communication")});
  }
  batches_ = std::make_unique<StepBatches>(mpi_, session_, plan_);
  measure_and_allocate();
  if (options_.resume) {
    agree_on_checkpoint(mpi_, *options_.resume);
    mpi_.run_on_all_ranks([&] { load_checkpoint(); });
  }
  evaluator_ = std::make_unique<Evaluator>(mpi_, session_, options_.run_dir);
  if (state_.step < plan_.steps) {
    batches_->start(state_.step + 1, trace_.track("loader"), options_.helper_cpus);
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

void Trainer::measure_and_allocate() {
  NamedParameters trainable;
  std::vector<size_t> order;
  std::vector<int64_t> sizes;
  mpi_.run_on_all_ranks([&] { trainable = choose_trained(session_); });
  mpi_.run_on_all_ranks([&] {
    auto batch = batches_->first_sample();
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
  trace_.write(state_.step);
  report_time(std::chrono::duration<double>(Clock::now() - begin).count(),
              code == ExitCode::kStopped ? "stopped" : "done");
  return code;
}

ExitCode Trainer::train() {
  const bool is_done = state_.step == plan_.steps && !state_.owes_evaluation;
  stop_agreed_ = !is_done && stop_request_.is_made();
  if (!stop_agreed_ && state_.step == 0 && !options_.resume) evaluate();
  if (stop_agreed_) {
    log::info("stopped before the first step of this start" + stop_request_.reason() +
              "; the same command begins again");
    return ExitCode::kStopped;
  }
  if (state_.owes_evaluation) {
    conclude_step();
    if (stop_agreed_) return tell_stop();
    if (watch_.stops_early()) return tell_early_stop();
  }
  if (watch_.stops_early()) {
    log::info("the run has stopped early at step " + std::to_string(state_.step) +
              "; nothing is left to do (--fresh starts over)");
    return ExitCode::kDone;
  }
  last_end_ = Clock::now();
  // What decides about the next update must have been read before it.
  const size_t may_lag = cuda_index(session_.device) >= 0 && !guard_.may_skip() ? 1 : 0;
  while (state_.step < plan_.steps) {
    trace_.before_step(state_.step + 1);
    launch_step();
    while (in_flight_.size() > (is_something_due() || stop_agreed_ ? 0 : may_lag)) record_step();
    conclude_step();
    if (stop_agreed_ && (state_.step < plan_.steps || state_.owes_evaluation)) return tell_stop();
    if (watch_.stops_early()) return tell_early_stop();
    if (is_something_due()) last_end_ = Clock::now();
  }
  return ExitCode::kDone;
}

// What is due after a step: its evaluation, what that decides, its checkpoint.
void Trainer::conclude_step() {
  const bool evaluates = is_evaluation_due() || state_.owes_evaluation;
  watch_.begin_step();
  if (evaluates && !stop_agreed_) evaluate();
  // A stop may leave less time than an evaluation takes: its checkpoint comes first, and the next
  // start evaluates.
  state_.owes_evaluation = evaluates && stop_agreed_;
  const bool stops = watch_.stops_early();
  if (stops && log_) log_->event(state_.step, "early_stop");  // Before it is saved.
  const bool is_last = state_.step == plan_.steps;
  const bool is_regular = is_last || stop_agreed_ || stops || is_checkpoint_due();
  const bool is_best = watch_.is_best_to_save(is_regular ? Saves::kAnyway : Saves::kIfBest);
  if (is_regular || is_best) save_checkpoint();
}

ExitCode Trainer::tell_stop() const {
  log::info("stopped after step " + std::to_string(state_.step) + " with a checkpoint" +
            stop_request_.reason() + "; the same command goes on from there");
  return ExitCode::kStopped;
}

ExitCode Trainer::tell_early_stop() const {
  log::info(config_.early_stopping.metric + " has not improved for " +
            std::to_string(config_.early_stopping.patience) + " evaluations: stopped early");
  return ExitCode::kDone;
}

void Trainer::record_step() {
  StepResult result = read_step();
  const auto end = Clock::now();
  result.step_seconds = std::chrono::duration<double>(end - last_end_).count();
  last_end_ = end;
  stop_request_.note_step_seconds(result.step_seconds);
  if (log_) log_->step(result);
}

// Whether the step just launched is followed by what needs its numbers.
bool Trainer::is_something_due() const {
  return state_.step == plan_.steps || is_evaluation_due() || is_checkpoint_due();
}

bool Trainer::is_checkpoint_due() const {
  const int64_t every = config_.checkpoint.every_steps;
  return every > 0 && state_.step % every == 0;
}

bool Trainer::is_evaluation_due() const {
  const int64_t every = config_.eval.every_steps;
  return every > 0 && (state_.step == plan_.steps || state_.step % every == 0);
}

// Sets stop_agreed_ where a stop ended it: then it has measured nothing.
void Trainer::evaluate() {
  if (config_.eval.every_steps == 0) return;
  wait_for_parameters();
  const auto span = clock_.measure(Phase::kEvaluation);
  if (log_) log_->activity("step " + std::to_string(state_.step) + ": evaluating");
  Evaluator::WithAverage with_average;
  if (ema_) {
    with_average = [this](const std::function<void()>& measure) {
      exchange_average();
      try {
        measure();
      } catch (const WorkStopped&) {
        exchange_average();
        throw;
      }
      exchange_average();
    };
  }
  const WorkStopper stopper([this] { return stop_request_.is_made_here(); });
  EvalMetrics metrics;
  try {
    metrics = evaluator_->evaluate(state_.step, plan_.steps, with_average, log_.get());
  } catch (const WorkStopped&) {
    stop_agreed_ = true;
    return;
  }
  watch_.note(metrics);
  if (log_ && !metrics.empty()) log_->evaluation(state_.step, metrics);
}
}  // namespace trireme
