#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/affinity.h"
#include "data/loader.h"
#include "data/sampler.h"
#include "dist/mpi_environment.h"
#include "trainer/batch_upload.h"
#include "trainer/run_plan.h"
#include "trainer/session.h"

namespace trireme {

// A rank's micro-batches of each step, those of data.prior among them: drawn in the order of the
// samplers, made by a thread ahead of the step, and brought to the device one ahead of their use.
class StepBatches {
 public:
  // All three outlive it.
  StepBatches(MpiEnvironment& mpi, const Session& session, const RunPlan& plan);

  // The batch of the first sample of the first step. Local.
  [[nodiscard]] LatentBatch first_sample() const;
  // Starts the thread, on `cpus`, with the batches of `first_step` to the plan's last.
  void start(int64_t first_step, TraceTrack trace, const CpuList& cpus);

  // Training data, and with data.prior the prior set: a piece has micro-batches of each in turn.
  [[nodiscard]] int64_t num_sources() const noexcept { return session_.prior ? 2 : 1; }
  [[nodiscard]] int64_t num_per_piece(int64_t step) const {
    return plan_.micros_per_piece(step) * num_sources();
  }

  // Fetches the next step's, `step`. Returns the seconds that they were waited for. Collective: a
  // rank whose data is bad says so before any rank starts the step's collectives.
  [[nodiscard]] double fetch(int64_t step);
  struct Next {
    const LatentBatch& batch;  // Valid until the next fetch().
    BatchTensors tensors;
  };
  // The step's next micro-batch, on the device; the one after it sets out.
  [[nodiscard]] Next next();

  // Which samples have a loss that is not finite, for an error: "loss not finite for samples 3
  // (FILE, row 3), …"; where none has, those of `pieces`, this rank's whose gradient is not finite.
  // `losses` are the step's, of this rank's micro-batches in order, (N) each.
  [[nodiscard]] std::string describe_bad(int64_t step, const std::vector<at::Tensor>& losses,
                                         const std::vector<int64_t>& pieces) const;

 private:
  [[nodiscard]] std::optional<BatchLoader::PriorSource> prior_source() const;
  [[nodiscard]] std::string describe_position(int64_t step, int64_t position) const;

  MpiEnvironment& mpi_;
  const Session& session_;
  const RunPlan& plan_;
  GlobalBatchSampler sampler_;
  std::unique_ptr<GlobalBatchSampler> prior_sampler_;  // Null without data.prior.
  std::unique_ptr<BatchLoader> loader_;
  BatchUpload upload_;
  std::vector<LatentBatch> batches_;  // Of the step under way.
  size_t num_taken_ = 0;              // Of them.
};
}  // namespace trireme
