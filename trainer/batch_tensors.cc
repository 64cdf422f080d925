#include "trainer/batch_tensors.h"

#include <vector>

#include "trainer/torch_api.h"

namespace trireme {
namespace {
template <typename T>
at::Tensor wrap(std::vector<T>& values, at::IntArrayRef shape, const torch::Device& device) {
  if (values.empty()) return {};
  const auto host =
      torch::from_blob(values.data(), shape, torch::dtype(c10::CppTypeToScalarType<T>::value));
  return device.is_cpu() ? host : host.to(device);
}
}  // namespace

BatchTensors to_device(LatentBatch& batch, const std::string& device_name) {
  const torch::Device device(device_name);
  const int64_t n = batch.num_samples();
  const auto& [channels, height, width] = batch.shape;
  BatchTensors tensors;
  tensors.latents = wrap(batch.latents, {n, channels, height, width}, device);
  tensors.noise = wrap(batch.noise, {n, channels, height, width}, device);
  tensors.condition = {
      .encoder_hidden_states =
          wrap(batch.prompt_embeds, {n, batch.text_length, batch.text_width}, device),
      .class_labels = wrap(batch.labels, {n}, device),
      .pooled_prompt_embeds = wrap(batch.pooled_prompt_embeds, {n, batch.pooled_width}, device),
      .add_time_ids = wrap(batch.add_time_ids, {n, 6}, device)};
  return tensors;
}
}  // namespace trireme
