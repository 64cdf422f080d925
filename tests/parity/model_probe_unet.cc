#include <chrono>
#include <filesystem>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "tests/parity/model_probe.h"
#include "trainer/models/diffusion_model.h"
#include "trainer/models/safetensors.h"
#include "trainer/torch_api.h"

namespace trireme::probe {
namespace {
at::Tensor read_if_there(const SafetensorsReader& reader, const std::string& name) {
  return reader.contains(name) ? reader.read(name) : at::Tensor();
}

std::optional<DropoutKey> dropout_key(const SafetensorsReader& reader) {
  if (!reader.contains("dropout_key")) return std::nullopt;
  const at::Tensor key = reader.read("dropout_key");  // (3) int64: seed, step, position
  return DropoutKey{.seed = static_cast<uint64_t>(key[0].item<int64_t>()),
                    .step = key[1].item<int64_t>(),
                    .first_position = key[2].item<int64_t>()};
}
}  // namespace

// Reads latents, timesteps, conditions and the output's gradient, where present; writes the output,
// the latents' gradient and those of the parameters.
int run_unet(std::span<const std::string> arguments) {
  require_count(arguments, 3);
  const auto model = load_model(arguments[0], 0.0);
  const SafetensorsReader in(arguments[1]);
  at::Tensor latents = in.read("latents").requires_grad_(true);
  const Condition condition{.encoder_hidden_states = read_if_there(in, "encoder_hidden_states"),
                            .class_labels = read_if_there(in, "class_labels"),
                            .pooled_prompt_embeds = read_if_there(in, "pooled_prompt_embeds"),
                            .add_time_ids = read_if_there(in, "add_time_ids")};
  const at::Tensor output =
      model->forward(latents, in.read("timesteps"), condition, dropout_key(in));
  NamedTensors results = {{"output", output.detach()}};
  if (in.contains("output_grad")) {
    output.backward(in.read("output_grad"));
    results.emplace_back("latents_grad", latents.grad());
    for (const auto& [name, parameter] : model->named_parameters()) {
      if (parameter.grad().defined()) results.emplace_back("grad/" + name, parameter.grad());
    }
  }
  write_safetensors(arguments[2], results);
  return 0;
}

// Prints the parameters' names in order.
int run_unet_names(std::span<const std::string> arguments) {
  require_count(arguments, 1);
  for (const auto& [name, tensor] : load_model(arguments[0], 0.0)->named_parameters()) {
    std::cout << name << '\n';
  }
  return 0;
}

// Prints the milliseconds of each forward and backward pass, one a line.
int run_unet_bench(std::span<const std::string> arguments) {
  require_count(arguments, 5);
  const auto model = load_model(arguments[0], 0.0);
  const int64_t batch = std::stoll(arguments[1]);
  const int64_t size = std::stoll(arguments[2]);
  const int64_t steps = std::stoll(arguments[4]);
  const at::Tensor latents = at::ones({batch, model->in_channels(), size, size}) * 0.1;
  const at::Tensor timesteps = at::full({batch}, 500, at::kLong);
  Condition condition;
  if (model->cross_attention_dim() > 0) {
    condition.encoder_hidden_states =
        at::ones({batch, std::stoll(arguments[3]), model->cross_attention_dim()});
  }
  for (auto& [name, parameter] : model->named_parameters()) {
    at::Tensor tensor = parameter;
    tensor.mutable_grad() = at::zeros_like(tensor);  // As in training: gradients add up in place.
  }
  for (int64_t step = 0; step < steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    model->forward(latents, timesteps, condition, std::nullopt).square().mean().backward();
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    std::cout << elapsed.count() << '\n';
  }
  return 0;
}

// Writes a model with random weights.
int run_unet_random(std::span<const std::string> arguments) {
  require_count(arguments, 3);
  const auto model = make_model(arguments[0], 0.0, std::stoull(arguments[1]));
  std::filesystem::create_directories(arguments[2]);
  save_model_folder(arguments[2], model->layout(), model->named_parameters());
  return 0;
}
}  // namespace trireme::probe
