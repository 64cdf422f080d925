#include "trainer/models/ldm_names.h"

#include <array>
#include <charconv>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace trireme {
namespace {
using Renames = std::span<const std::pair<std::string_view, std::string_view>>;

// "down_blocks.3.resnets.1.norm1.weight" -> its parts.
std::vector<std::string_view> split(std::string_view name) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    parts.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string join(std::span<const std::string_view> parts) {
  std::string text;
  for (const auto part : parts) text += (text.empty() ? "" : ".") + std::string(part);
  return text;
}

int64_t number(std::string_view text) {
  int64_t value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  check(value >= 0, "a number in a parameter's name");
  return value;
}

// `rest` with its beginning renamed; as it is where no rename fits.
std::string renamed(std::string_view rest, Renames renames) {
  for (const auto& [from, to] : renames) {
    if (rest == from || rest.starts_with(std::string(from) + "."))
      return std::string(to) + std::string(rest.substr(from.size()));
  }
  return std::string(rest);
}

[[noreturn]] void throw_unknown(const std::string& name) {
  throw InternalError("the parameter " + name + " has no name in a single file; please report.");
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kResnet = {{
    {"norm1", "in_layers.0"},
    {"conv1", "in_layers.2"},
    {"time_emb_proj", "emb_layers.1"},
    {"norm2", "out_layers.0"},
    {"conv2", "out_layers.3"},
    {"conv_shortcut", "skip_connection"},
}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kOutside = {{
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
    {"conv_in", "input_blocks.0.0"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"},
    {"class_embedding.linear_1", "label_emb.0.0"},
    {"class_embedding.linear_2", "label_emb.0.2"},
    {"class_embedding", "label_emb"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 1> kVaeResnet = {{
    {"conv_shortcut", "nin_shortcut"},
}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kVaeAttention = {{
    {"group_norm", "norm"},
    {"to_q", "q"},
    {"to_k", "k"},
    {"to_v", "v"},
    {"to_out.0", "proj_out"},
    {"query", "q"},
    {"key", "k"},
    {"value", "v"},
    {"proj_attn", "proj_out"},
}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kOpenClip = {{
    {"embeddings.position_embedding.weight", "positional_embedding"},
    {"embeddings.token_embedding", "token_embedding"},
    {"final_layer_norm", "ln_final"},
    {"text_projection.weight", "text_projection"},
}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kOpenClipLayer = {{
    {"layer_norm1", "ln_1"},
    {"layer_norm2", "ln_2"},
    {"mlp.fc1", "mlp.c_fc"},
    {"mlp.fc2", "mlp.c_proj"},
    {"self_attn.out_proj", "attn.out_proj"},
    {"self_attn.q_proj.weight", "attn.in_proj_weight"},
    {"self_attn.k_proj.weight", "attn.in_proj_weight"},
    {"self_attn.v_proj.weight", "attn.in_proj_weight"},
    {"self_attn.q_proj.bias", "attn.in_proj_bias"},
    {"self_attn.k_proj.bias", "attn.in_proj_bias"},
    {"self_attn.v_proj.bias", "attn.in_proj_bias"},
}};

std::string in_block(const std::string& block, std::string_view part, const std::string& rest) {
  return part == "resnets" ? block + ".0." + renamed(rest, kResnet) : block + ".1." + rest;
}
}  // namespace

std::string ldm_unet_name(const std::string& name, LdmUNetShape shape, bool has_attention) {
  const std::string prefix = "model.diffusion_model.";
  const auto parts = split(name);
  const int64_t stride = shape.layers_per_block + 1;  // Of a down block with its downsampler.
  if (parts[0] == "mid_block" && parts.size() > 3) {
    const std::string rest = join(std::span(parts).subspan(3));
    const int64_t index = 2 * number(parts[2]) + (parts[1] == "attentions" ? 1 : 0);
    return prefix + "middle_block." + std::to_string(index) + "." +
           (parts[1] == "resnets" ? renamed(rest, kResnet) : rest);
  }
  if ((parts[0] == "down_blocks" || parts[0] == "up_blocks") && parts.size() > 4) {
    const int64_t block = number(parts[1]);
    const int64_t layer = number(parts[3]);
    const std::string rest = join(std::span(parts).subspan(4));
    const auto place = [&](const char* blocks, int64_t index) {
      return prefix + blocks + std::to_string(index);
    };
    if (parts[2] == "downsamplers") {  // rest: "conv.weight"
      return place("input_blocks.", (block + 1) * stride) + ".0.op" + rest.substr(4);
    }
    if (parts[2] == "upsamplers") {
      return place("output_blocks.", block * stride + shape.layers_per_block) +
             (has_attention ? ".2." : ".1.") + rest;
    }
    return in_block(parts[0] == "down_blocks" ? place("input_blocks.", 1 + block * stride + layer)
                                              : place("output_blocks.", block * stride + layer),
                    parts[2], rest);
  }
  const std::string outside = renamed(name, kOutside);
  if (outside == name) throw_unknown(name);
  return prefix + outside;
}

std::string ldm_vae_name(const std::string& name, int64_t num_up_blocks) {
  const std::string prefix = "first_stage_model.";
  const auto parts = split(name);
  if (parts[0] == "quant_conv" || parts[0] == "post_quant_conv") return prefix + name;
  if ((parts[0] != "encoder" && parts[0] != "decoder") || parts.size() < 3) throw_unknown(name);
  const std::string half = prefix + std::string(parts[0]) + ".";
  if (parts[1] == "mid_block" && parts.size() > 4) {
    const std::string rest = join(std::span(parts).subspan(4));
    const std::string index = std::to_string(number(parts[3]) + 1);
    return half + (parts[2] == "resnets"
                       ? "mid.block_" + index + "." + renamed(rest, kVaeResnet)
                       : "mid.attn_" + index + "." + renamed(rest, kVaeAttention));
  }
  if ((parts[1] == "down_blocks" || parts[1] == "up_blocks") && parts.size() > 5) {
    const bool is_down = parts[1] == "down_blocks";
    const int64_t block = is_down ? number(parts[2]) : num_up_blocks - 1 - number(parts[2]);
    const std::string place = half + (is_down ? "down." : "up.") + std::to_string(block) + ".";
    const std::string rest = join(std::span(parts).subspan(5));
    if (parts[3] == "resnets") {
      return place + "block." + std::string(parts[4]) + "." + renamed(rest, kVaeResnet);
    }
    return place + (is_down ? "downsample." : "upsample.") + rest;
  }
  const std::string rest = join(std::span(parts).subspan(1));
  return half + (rest.starts_with("conv_norm_out") ? rest.substr(5) : rest);
}

std::string open_clip_name(const std::string& name) {
  const std::string prefix = "cond_stage_model.model.";
  const std::string plain = name.starts_with("text_model.") ? name.substr(11) : name;
  if (plain.ends_with("position_ids")) return "";
  const auto parts = split(plain);
  if (parts[0] == "encoder" && parts.size() > 4) {
    const std::string rest = join(std::span(parts).subspan(3));
    return prefix + "transformer.resblocks." + std::string(parts[2]) + "." +
           renamed(rest, kOpenClipLayer);
  }
  const std::string outside = renamed(plain, kOpenClip);
  if (outside == plain) throw_unknown(name);
  return prefix + outside;
}
}  // namespace trireme
