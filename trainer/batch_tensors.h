#pragma once
#include <string>

#include <ATen/core/Tensor.h>

#include "data/latent_batch.h"
#include "trainer/models/diffusion_model.h"

namespace trireme {

// A LatentBatch on the device.
struct BatchTensors {
  at::Tensor latents;  // (N, C, H, W)
  at::Tensor noise;    // (N, C, H, W)
  Condition condition;
};

// Copies `batch` to `device` ("cpu": tensors share the batch's memory, which must outlive them).
[[nodiscard]] BatchTensors to_device(LatentBatch& batch, const std::string& device);
}  // namespace trireme
