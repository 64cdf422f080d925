#include "study/trained_layers.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "trainer/adapters/lora.h"
#include "trainer/freeze.h"

namespace trireme {
namespace {
using Input = LayerCost::Input;
using Weight = LayerCost::Weight;

void freeze_parameters(LayerCost& layer) {
  layer.frozen = std::move(layer.parameters);
  layer.parameters.clear();
  layer.weight = Weight::kFrozen;
}

// A layer's tensors are its weight and its bias, in this order.
void freeze_selected(std::vector<LayerCost>& layers, const FreezeOptions& options) {
  std::vector<std::string> names;
  for (const auto& layer : layers) {
    for (size_t i = 0; i < layer.parameters.size(); ++i) {
      names.push_back(layer.name + (i == 0 ? ".weight" : ".bias"));
    }
  }
  const std::vector<bool> is_trained = select_trained(names, options);
  size_t next = 0;
  for (auto& layer : layers) {
    const std::vector<int64_t> all = std::exchange(layer.parameters, {});
    for (size_t i = 0; i < all.size(); ++i) {
      const bool stays = is_trained[next++];
      (stays ? layer.parameters : layer.frozen).push_back(all[i]);
      if (i == 0 && !stays) layer.weight = Weight::kFrozen;
    }
  }
}

// B A x beside W x.
void append_adapter(const LayerCost& layer, int64_t rank, std::vector<LayerCost>& layers) {
  const auto width = static_cast<double>(rank);
  const int64_t outputs = layer.frozen.front() / layer.fan_in;
  const double rows = layer.macs / static_cast<double>(layer.frozen.front());
  layers.push_back({.name = layer.name + ".lora_A",
                    .parameters = {rank * layer.fan_in},
                    .macs = width * static_cast<double>(layer.fan_in) * rows,
                    .stored = layer.stored,
                    .input = layer.input,
                    .fan_in = layer.fan_in,
                    .frozen = {},
                    .kernel = layer.kernel,
                    .block = layer.block});
  layers.push_back({.name = layer.name + ".lora_B",
                    .parameters = {outputs * rank},
                    .macs = width * static_cast<double>(outputs) * rows,
                    .stored = width * rows,
                    .fan_in = rank,
                    .frozen = {},
                    .kernel = layer.kernel,
                    .block = layer.block});
}

void add_adapter(std::vector<LayerCost>& layers, const AdapterOptions& options) {
  std::vector<LayerCost> all;
  std::vector<bool> is_found(options.targets.size());
  for (auto& layer : layers) {
    if (!layer.parameters.empty()) freeze_parameters(layer);
    all.push_back(layer);
    if (layer.fan_in == 0) continue;
    bool is_target = false;
    for (size_t i = 0; i < options.targets.size(); ++i) {
      if (!is_named(layer.name, options.targets[i])) continue;
      is_target = true;
      is_found[i] = true;
    }
    if (is_target) append_adapter(layer, options.rank, all);
  }
  const auto missing = std::ranges::find(is_found, false);
  if (missing != is_found.end()) {
    throw UsageError("adapter.targets: '" +
                     options.targets[static_cast<size_t>(missing - is_found.begin())] +
                     "' is the end of no linear or convolutional layer's name in this model.");
  }
  layers = std::move(all);
}

// Gradients go back to the first layer that is trained, and a frozen product does not keep its
// input.
void end_backward(std::vector<LayerCost>& layers) {
  bool has_gradient = false;
  for (auto& layer : layers) {
    const bool is_operation = layer.parameters.empty() && layer.frozen.empty();
    if (!has_gradient) {
      layer.input = Input::kData;
      if (is_operation) layer.weight = Weight::kFrozen;
    }
    has_gradient = has_gradient || !layer.parameters.empty();
    const bool needs_nothing = layer.input == Input::kData && layer.weight == Weight::kFrozen;
    const bool is_product = layer.fan_in > 0 && layer.weight == Weight::kFrozen;
    if (needs_nothing || is_product) layer.stored = 0.0;
  }
}
}  // namespace

void leave_trained(NetworkCost& network, const Config& config) {
  const FreezeOptions& freeze = config.freeze;
  const bool has_adapter = config.adapter.type != "none";
  const bool freezes =
      !freeze.patterns.empty() || !freeze.groups.empty() || freeze.first_blocks > 0;
  if (has_adapter) add_adapter(network.layers, config.adapter);
  if (freezes) freeze_selected(network.layers, freeze);
  if (has_adapter || freezes) end_backward(network.layers);
}
}  // namespace trireme
