#include <fstream>
#include <span>
#include <string>

#include "core/error.h"
#include "tests/parity/model_probe.h"
#include "trainer/models/autoencoder_kl.h"
#include "trainer/models/clip_pair.h"
#include "trainer/models/clip_text.h"
#include "trainer/models/inception_v3.h"
#include "trainer/models/safetensors.h"
#include "trainer/torch_api.h"

namespace trireme::probe {
// encode: reads `images`, writes `output`, the moments. decode: reads `latents`, writes the images.
int run_vae(std::span<const std::string> arguments) {
  require_count(arguments, 4);
  const auto vae = AutoencoderKL::load(arguments[1]);
  const SafetensorsReader in(arguments[2]);
  const at::Tensor output = arguments[0] == "encode" ? vae->encode_moments(in.read("images"))
                                                     : vae->decode(in.read("latents"));
  write_safetensors(arguments[3], {{"output", output.contiguous()}});
  return 0;
}

// Reads `token_ids`, writes `last_hidden_state` and `pooled`.
int run_clip(std::span<const std::string> arguments) {
  require_count(arguments, 3);
  const auto model = ClipTextModel::load(arguments[0]);
  const auto output = model->forward(SafetensorsReader(arguments[1]).read("token_ids"));
  write_safetensors(arguments[2], {{"last_hidden_state", output.last_hidden_state.contiguous()},
                                   {"pooled", output.pooled.contiguous()}});
  return 0;
}

// Reads `images`, writes `features`.
int run_inception(std::span<const std::string> arguments) {
  require_count(arguments, 4);
  const auto resize = arguments[1] == "torch_fidelity" ? InceptionResize::kTorchFidelity
                                                       : InceptionResize::kPytorchFid;
  const auto network = InceptionV3::load(arguments[0], resize);
  const auto features = network->features(SafetensorsReader(arguments[2]).read("images"));
  write_safetensors(arguments[3], {{"features", features.contiguous()}});
  return 0;
}

// Reads `images`, writes the embeddings `images` and `texts`.
int run_clip_pair(std::span<const std::string> arguments) {
  const auto pair = ClipPair::load(arguments[0]);
  const auto images = pair->embed_images(SafetensorsReader(arguments[1]).read("images"));
  const auto texts = pair->embed_texts({arguments.begin() + 3, arguments.end()});
  write_safetensors(arguments[2], {{"images", images.contiguous()}, {"texts", texts.contiguous()}});
  return 0;
}

// IN.bin holds texts, each ended by the byte 0xff, which no UTF-8 text holds. Writes two lines for
// each: the tokens' ids, then those of encode().
int run_tokenize(std::span<const std::string> arguments) {
  require_count(arguments, 3);
  const auto tokenizer = ClipTokenizer::load(arguments[0]);
  std::ifstream in(arguments[1], std::ios::binary);
  std::ofstream out(arguments[2]);
  for (std::string text; std::getline(in, text, '\xff');) {
    for (const auto& ids : {tokenizer->tokenize(text), tokenizer->encode(text)}) {
      for (const int64_t id : ids) out << id << ' ';
      out << '\n';
    }
  }
  return out.good() ? 0 : 1;
}
}  // namespace trireme::probe
