#include "trainer/batch_upload.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr size_t kNumTensors = 6;

std::array<at::Tensor*, kNumTensors> tensors_of(BatchTensors& batch) {
  auto& condition = batch.condition;
  return {&batch.latents,
          &batch.noise,
          &condition.encoder_hidden_states,
          &condition.class_labels,
          &condition.pooled_prompt_embeds,
          &condition.add_time_ids};
}
}  // namespace

struct BatchUpload::Slot {
  BatchTensors tensors;
  std::array<at::Tensor, kNumTensors> pinned;  // Kept: page-locking memory is slow.
  std::optional<c10::Stream> stream;           // Of copies; nothing on a CPU.
  std::optional<c10::Event> copied;
};

BatchUpload::BatchUpload(const std::string& device) : device_(device) {
  const torch::Device target(device);
  for (auto& slot : slots_) slot = std::make_unique<Slot>();
  if (target.is_cpu()) return;
  const c10::impl::VirtualGuardImpl driver(target.type());
  const c10::Stream stream = driver.getStreamFromGlobalPool(target);
  for (auto& slot : slots_) {
    slot->stream = stream;
    slot->copied.emplace(target.type());
  }
}

BatchUpload::~BatchUpload() = default;

void BatchUpload::start(LatentBatch& batch) {
  check(started_ - taken_ < slots_.size(), "at most two batches on their way");
  Slot& slot = *slots_[started_++ % slots_.size()];
  slot.tensors = to_device(batch, "cpu");
  if (!slot.stream) return;
  if (slot.copied->was_marked_for_recording()) slot.copied->synchronize();  // Long since.
  const c10::StreamGuard on_copy_stream(*slot.stream);
  const auto tensors = tensors_of(slot.tensors);
  for (size_t i = 0; i < kNumTensors; ++i) {
    if (!tensors[i]->defined()) continue;
    at::Tensor& pinned = slot.pinned[i];
    if (!pinned.defined() || pinned.sizes() != tensors[i]->sizes()) {
      pinned = torch::empty(tensors[i]->sizes(), tensors[i]->options()).pin_memory();
    }
    pinned.copy_(*tensors[i]);
    *tensors[i] = pinned.to(torch::Device(device_), /*non_blocking=*/true);
  }
  slot.copied->record(*slot.stream);
}

BatchTensors BatchUpload::take() {
  check(taken_ < started_, "a batch was started");
  Slot& slot = *slots_[taken_++ % slots_.size()];
  BatchTensors tensors = std::move(slot.tensors);
  slot.tensors = {};
  if (!slot.stream) return tensors;
  const torch::Device target(device_);
  const c10::impl::VirtualGuardImpl driver(target.type());
  const c10::Stream compute = driver.getStream(target);
  slot.copied->block(compute);
  // Allocated on the copy stream: the allocator must know who else uses it.
  for (at::Tensor* tensor : tensors_of(tensors)) {
    if (tensor->defined()) tensor->record_stream(compute);
  }
  return tensors;
}
}  // namespace trireme
