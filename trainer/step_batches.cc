#include "trainer/step_batches.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr size_t kSamplesNamed = 8;  // In an error message.

GlobalBatchSampler make_sampler(const Session& session, const RunPlan& plan) {
  using Order = GlobalBatchSampler::Options::Order;
  return {session.dataset->classes(),
          *session.split,
          {.seed = session.config.run.seed,
           .global_batch = plan.global_batch,
           .order = session.config.data.shuffle ? Order::kShuffled : Order::kByIndex,
           .repeats = session.repeats}};
}
}  // namespace

StepBatches::StepBatches(MpiEnvironment& mpi, const Session& session, const RunPlan& plan)
    : mpi_(mpi),
      session_(session),
      plan_(plan),
      sampler_(make_sampler(session, plan)),
      prior_sampler_(session.prior ? make_prior_sampler(session, plan.global_batch) : nullptr),
      upload_(session.device) {}

LatentBatch StepBatches::first_sample() const {
  return make_training_batch(*session_.dataset, session_.draw, 1, 0, sampler_.draws(1, 0, 1));
}

std::optional<BatchLoader::PriorSource> StepBatches::prior_source() const {
  if (!session_.prior) return std::nullopt;
  return BatchLoader::PriorSource{.dataset = session_.prior.get(),
                                  .sampler = prior_sampler_.get(),
                                  .draw = session_.prior_draw,
                                  .first_position = plan_.last_batch(),
                                  .loss_weight = session_.config.data.prior_weight};
}

void StepBatches::start(int64_t first_step, TraceTrack trace, const CpuList& cpus) {
  const ThreadsStartOn helpers(cpus);
  loader_ = std::make_unique<BatchLoader>(*session_.dataset, sampler_,
                                          BatchLoader::Options{.draw = session_.draw,
                                                               .first_step = first_step,
                                                               .last_step = plan_.steps,
                                                               .rank = mpi_.rank(),
                                                               .num_ranks = mpi_.world_size(),
                                                               .micro = plan_.micro,
                                                               .trace = trace,
                                                               .prior = prior_source()});
}

double StepBatches::fetch(int64_t step) {
  const double before = loader_->wait_seconds();
  mpi_.run_on_all_ranks([&] {
    batches_.clear();
    const int64_t count = plan_.pieces_per_rank * num_per_piece(step);
    for (int64_t i = 0; i < count; ++i) batches_.push_back(loader_->next());
  });
  num_taken_ = 0;
  return loader_->wait_seconds() - before;
}

StepBatches::Next StepBatches::next() {
  check(num_taken_ < batches_.size(), "a batch to take");
  if (num_taken_ == 0) upload_.start(batches_.front());
  const LatentBatch& batch = batches_[num_taken_++];
  BatchTensors tensors = upload_.take();
  if (num_taken_ < batches_.size()) upload_.start(batches_[num_taken_]);
  return {batch, std::move(tensors)};
}

std::string StepBatches::describe_position(int64_t step, int64_t position) const {
  const int64_t batch = plan_.global_batch.global_batch(step);
  const bool is_prior = position >= batch;
  const auto& sampler = is_prior ? *prior_sampler_ : sampler_;
  const auto& dataset = is_prior ? *session_.prior : *session_.dataset;
  const int64_t place = is_prior ? position - batch : position;
  const int64_t sample = sampler.draws(step, place, 1).front().sample;
  return std::to_string(sample) + " (" + dataset.describe(sample) + ")";
}

std::string StepBatches::describe_bad(int64_t step, const std::vector<at::Tensor>& losses,
                                      const std::vector<int64_t>& pieces) const {
  // Positions of the batch, and of the prior batch those after them.
  std::vector<int64_t> positions;
  const int64_t batch = plan_.global_batch.global_batch(step);
  const int64_t share = batch / mpi_.world_size();
  for (size_t i = 0; i < losses.size(); ++i) {
    const at::Tensor host = losses[i].cpu().contiguous();
    const int64_t micro = static_cast<int64_t>(i) / num_sources();
    const bool is_prior = static_cast<int64_t>(i) % num_sources() == 1;
    const int64_t first = mpi_.rank() * share + micro * plan_.micro + (is_prior ? batch : 0);
    for (int64_t k = 0; k < host.numel(); ++k) {
      if (!std::isfinite(host.const_data_ptr<float>()[k])) positions.push_back(first + k);
    }
  }
  const bool some_loss = !positions.empty();
  if (!some_loss) {
    const int64_t size = batch / plan_.num_pieces;
    for (const int64_t piece : pieces) {
      for (int64_t source = 0; source < num_sources(); ++source) {
        for (int64_t i = 0; i < size; ++i) positions.push_back(source * batch + piece * size + i);
      }
    }
  }
  std::string text = some_loss ? "loss not finite for " : "gradient not finite, from ";
  text += positions.size() == 1 ? "sample " : "samples ";
  for (size_t i = 0; i < std::min(positions.size(), kSamplesNamed); ++i) {
    text += (i > 0 ? ", " : "") + describe_position(step, positions[i]);
  }
  if (positions.size() > kSamplesNamed) {
    text += " and " + std::to_string(positions.size() - kSamplesNamed) + " more";
  }
  return text;
}
}  // namespace trireme
