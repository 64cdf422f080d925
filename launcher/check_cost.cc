#include "launcher/check_cost.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "data/latent_math.h"
#include "trainer/batch_tensors.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kSideMax = 16;  // Latent elements: enough to measure, quick for any model.

// Counts the bytes of tensors that this thread allocates and has not freed.
class LiveBytes final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t alloc_size, size_t, size_t, c10::Device) override {
    bytes_ += alloc_size;
  }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
  [[nodiscard]] int64_t bytes() const noexcept { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

// The side of the square that is measured; 0: the whole latent.
int64_t measured_crop(const Session& session, const LatentShape& shape) {
  const int64_t side = std::min(shape.height, shape.width);
  const int64_t multiple = session.model->sample_size_multiple();
  const int64_t limit = std::max(kSideMax / multiple, int64_t{1}) * multiple;
  return side > limit ? limit : session.draw.crop;
}
}  // namespace

SampleCost measure_sample_cost(const Session& session) {
  const auto& classes = session.dataset->classes();
  size_t c = 0;
  while (session.split->num_training(c) == 0) ++c;
  const LatentShape trained = cropped_shape(classes[c].shape, session.draw.crop);
  DrawOptions draw = session.draw;
  draw.crop = measured_crop(session, trained);
  LatentBatch batch = make_training_batch(*session.dataset, draw, 1, 0,
                                          {{.sample = session.split->training_sample(c, 0)}});
  const BatchTensors tensors = to_device(batch, "cpu");
  const NoisedBatch noised = add_noise(*session.schedule, session.config.objective, tensors.latents,
                                       tensors.noise, batch.timesteps, batch.uniforms);
  const auto forward = [&] {
    return session.model->forward(noised.latents, noised.model_times, tensors.condition,
                                  std::nullopt);
  };
  const double scale =
      static_cast<double>(trained.num_elements()) / static_cast<double>(batch.shape.num_elements());
  SampleCost cost;
  for (const auto& [name, tensor] : session.model->named_parameters()) {
    const at::Tensor parameter = tensor;
    parameter.set_requires_grad(true);
  }
  {
    const auto live = std::make_shared<LiveBytes>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
    const at::Tensor output = forward();  // Warms up, too.
    cost.activation_bytes = static_cast<double>(live->bytes()) * scale;
  }
  const torch::NoGradGuard no_grad;
  for (int i = 0; i < 2; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    (void)forward();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() * scale;
    cost.forward_seconds = i == 0 ? seconds : std::min(cost.forward_seconds, seconds);
  }
  return cost;
}
}  // namespace trireme
