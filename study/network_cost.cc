#include "study/network_cost.h"

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "study/transformer_cost.h"
#include "study/unet_cost.h"
#include "trainer/models/unet_config.h"

namespace trireme {
namespace {
constexpr int64_t kMaxSide = 1 << 16;
constexpr int64_t kMaxTokens = 1 << 20;

std::string class_of(const nlohmann::json& config) {
  const auto found = config.find("_class_name");
  if (found == config.end() || !found->is_string()) return "UNet2DConditionModel";
  return found->get<std::string>();
}

void check_input(const InputShape& input) {
  const bool is_good = input.height > 0 && input.height <= kMaxSide && input.width > 0 &&
                       input.width <= kMaxSide && input.text_tokens >= 0 &&
                       input.text_tokens <= kMaxTokens;
  if (!is_good) {
    throw UsageError("The input is " + std::to_string(input.height) + "x" +
                     std::to_string(input.width) + " with " + std::to_string(input.text_tokens) +
                     " text tokens; sides of 1 to 65536 and at most 2^20 tokens are possible.");
  }
}
}  // namespace

int64_t NetworkCost::num_parameters() const {
  int64_t sum = num_trained();
  for (const auto& layer : layers) {
    for (const int64_t elements : layer.frozen) sum += elements;
  }
  return sum;
}

int64_t NetworkCost::num_trained() const {
  int64_t sum = 0;
  for (const auto& layer : layers) {
    for (const int64_t elements : layer.parameters) sum += elements;
  }
  return sum;
}

int64_t NetworkCost::num_tensors() const {
  int64_t sum = 0;
  for (const auto& layer : layers) {
    sum += static_cast<int64_t>(layer.parameters.size() + layer.frozen.size());
  }
  return sum;
}

double NetworkCost::forward_flops() const {
  double sum = 0.0;
  for (const auto& layer : layers) sum += 2.0 * layer.macs;
  return sum;
}

double NetworkCost::training_flops() const {
  double sum = 0.0;
  for (const auto& layer : layers) sum += 2.0 * (layer.macs + layer.backward_macs());
  return sum;
}

double NetworkCost::recomputed_flops() const {
  double sum = 0.0;
  for (const auto& layer : layers) sum += layer.block >= 0 ? 2.0 * layer.macs : 0.0;
  return sum;
}

double NetworkCost::stored_elements() const {
  double sum = 0.0;
  for (const auto& layer : layers) sum += layer.stored;
  return sum;
}

double NetworkCost::checkpointed_elements() const {
  double kept = 0.0;
  std::map<int, double> in_block;
  for (const auto& layer : layers) {
    kept += layer.block_input;
    (layer.block >= 0 ? in_block[layer.block] : kept) += layer.stored;
  }
  double largest = 0.0;
  for (const auto& [block, elements] : in_block) largest = std::max(largest, elements);
  return kept + largest;
}

NetworkCost count_network(const nlohmann::json& config, const std::filesystem::path& file,
                          const InputShape& input) {
  check_input(input);
  NetworkCost cost{.class_name = class_of(config), .layers = {}};
  ConfigReader reader(config, file);
  if (cost.class_name == "UNet2DConditionModel") {
    cost.layers = unet_layers(parse_unet_config(config, file), input);
  } else if (cost.class_name == "DiTTransformer2DModel") {
    cost.layers = dit_layers(reader, input);
  } else if (cost.class_name == "SD3Transformer2DModel") {
    cost.layers = sd3_layers(reader, input);
  } else if (cost.class_name == "FluxTransformer2DModel") {
    cost.layers = flux_layers(reader, input);
  } else {
    reader.fail("_class_name",
                "its cost is not known; known are UNet2DConditionModel, DiTTransformer2DModel, "
                "SD3Transformer2DModel and FluxTransformer2DModel");
  }
  return cost;
}

InputShape default_input(const nlohmann::json& config) {
  const std::string name = class_of(config);
  const int64_t side = config.contains("sample_size") && config["sample_size"].is_number_integer()
                           ? config["sample_size"].get<int64_t>()
                           : 0;
  if (name == "DiTTransformer2DModel") return {side > 0 ? side : 32, side > 0 ? side : 32, 0};
  if (name == "SD3Transformer2DModel") return {side > 0 ? side : 128, side > 0 ? side : 128, 154};
  if (name == "FluxTransformer2DModel") return {128, 128, 512};
  return {side > 0 ? side : 64, side > 0 ? side : 64, 77};
}
}  // namespace trireme
