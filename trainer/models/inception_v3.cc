#include "trainer/models/inception_v3.h"

#include <array>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "trainer/models/layers.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/models/safetensors.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kSide = 299;
constexpr double kEps = 1e-3;  // Of batch normalisation.

struct ConvShape {
  int64_t in = 0;
  int64_t out = 0;
  std::array<int64_t, 2> kernel = {1, 1};
  int64_t stride = 1;
  std::array<int64_t, 2> padding = {0, 0};
};

// Convolution, batch normalisation and ReLU.
class ConvUnit {
 public:
  ConvUnit(const ParameterScope& scope, const ConvShape& shape) : shape_(shape) {
    weight_ =
        (scope / "conv").add("weight", {shape.out, shape.in, shape.kernel[0], shape.kernel[1]}, {});
    gain_ = (scope / "bn").add("weight", {shape.out}, {});
    shift_ = (scope / "bn").add("bias", {shape.out}, {});
    mean_ = (scope / "bn").add("running_mean", {shape.out}, {});
    variance_ = (scope / "bn").add("running_var", {shape.out}, {});
  }

  // Once the parameters are read.
  void fold(const std::string& device) {
    const at::Tensor factor =
        gain_.to(at::kDouble) / (variance_.to(at::kDouble) + kEps).sqrt();  // (out)
    folded_weight_ =
        (weight_.to(at::kDouble) * factor.view({-1, 1, 1, 1})).to(at::kFloat).to(device);
    folded_bias_ =
        (shift_.to(at::kDouble) - mean_.to(at::kDouble) * factor).to(at::kFloat).to(device);
  }

  at::Tensor operator()(const at::Tensor& x) const {  // (N, in, H, W) -> (N, out, H', W')
    return at::conv2d(x, folded_weight_, folded_bias_, shape_.stride, shape_.padding).relu_();
  }

 private:
  ConvShape shape_;
  at::Tensor weight_;
  at::Tensor gain_;
  at::Tensor shift_;
  at::Tensor mean_;
  at::Tensor variance_;
  at::Tensor folded_weight_;
  at::Tensor folded_bias_;
};

// TensorFlow's bilinear resize: the place of output i is i in / out, without half-pixel centres.
at::Tensor resize_by_corners(const at::Tensor& x, int64_t side) {
  const auto taps = [&](int64_t in) {
    const auto scale = static_cast<float>(static_cast<double>(in) / static_cast<double>(side));
    const at::Tensor place = at::arange(side, x.options()) * scale;  // (side) float32
    const at::Tensor low = place.to(at::kLong);
    return std::array<at::Tensor, 3>{low, (low + 1).clamp_max(in - 1), place - low.to(at::kFloat)};
  };
  const auto [left, right, dx] = taps(x.size(3));
  const auto [top, bottom, dy] = taps(x.size(2));
  const auto row = [&, &left = left, &right = right, &dx = dx](const at::Tensor& y) {
    const at::Tensor rows = x.index_select(2, y);  // (N, 3, side, W)
    const at::Tensor begin = rows.index_select(3, left);
    return begin + (rows.index_select(3, right) - begin) * dx;
  };
  const at::Tensor begin = row(top);
  return begin + (row(bottom) - begin) * dy.view({-1, 1});
}

at::Tensor mean_pool(const at::Tensor& x) {
  return at::avg_pool2d(x, 3, 1, 1, /*ceil_mode=*/false, /*count_include_pad=*/false);
}

class InceptionV3Impl final : public InceptionV3 {
 public:
  InceptionV3Impl(const std::filesystem::path& weights, InceptionResize resize) : resize_(resize) {
    add_stem();
    add_35("Mixed_5b", 192, 32);
    add_35("Mixed_5c", 256, 64);
    add_35("Mixed_5d", 288, 64);
    add("Mixed_6a.branch3x3", {288, 384, {3, 3}, 2});
    add("Mixed_6a.branch3x3dbl_1", {288, 64});
    add("Mixed_6a.branch3x3dbl_2", {64, 96, {3, 3}, 1, {1, 1}});
    add("Mixed_6a.branch3x3dbl_3", {96, 96, {3, 3}, 2});
    add_17("Mixed_6b", 128);
    add_17("Mixed_6c", 160);
    add_17("Mixed_6d", 160);
    add_17("Mixed_6e", 192);
    add("Mixed_7a.branch3x3_1", {768, 192});
    add("Mixed_7a.branch3x3_2", {192, 320, {3, 3}, 2});
    add("Mixed_7a.branch7x7x3_1", {768, 192});
    add("Mixed_7a.branch7x7x3_2", {192, 192, {1, 7}, 1, {0, 3}});
    add("Mixed_7a.branch7x7x3_3", {192, 192, {7, 1}, 1, {3, 0}});
    add("Mixed_7a.branch7x7x3_4", {192, 192, {3, 3}, 2});
    add_8("Mixed_7b", 1280);
    add_8("Mixed_7c", 2048);
    const SafetensorsReader reader(weights);
    read_frozen_parameters(reader, current_name, parameters_);
    files_ = reader.files();
    to_device("cpu");
  }

  at::Tensor features(const at::Tensor& images) override {
    check(images.dim() == 4 && images.size(1) == 3 && images.scalar_type() == at::kByte,
          "pictures have shape (N, 3, H, W) and are uint8");
    const at::NoGradGuard no_grad;
    at::Tensor x = prepare(images.to(device_).to(at::kFloat));  // (N, 3, 299, 299)
    x = chain(x, {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"});
    x = chain(at::max_pool2d(x, 3, 2), {"Conv2d_3b_1x1", "Conv2d_4a_3x3"});
    x = at::max_pool2d(x, 3, 2);  // (N, 192, 35, 35)
    for (const char* name : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) x = block_35(name, x);
    x = at::cat({chain(x, {"Mixed_6a.branch3x3"}), branch(x, "Mixed_6a", "branch3x3dbl_", 3),
                 at::max_pool2d(x, 3, 2)},
                1);  // (N, 768, 17, 17)
    for (const char* name : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) x = block_17(name, x);
    x = at::cat({branch(x, "Mixed_7a", "branch3x3_", 2), branch(x, "Mixed_7a", "branch7x7x3_", 4),
                 at::max_pool2d(x, 3, 2)},
                1);  // (N, 1280, 8, 8)
    x = block_8("Mixed_7b", x, mean_pool(x));
    x = block_8("Mixed_7c", x, at::max_pool2d(x, 3, 1, 1));  // (N, 2048, 8, 8)
    return x.mean({2, 3});
  }

  std::string weights_sha256() const override { return sha256_of_weights(files_); }

  void to_device(const std::string& device) override {
    for (auto& [name, unit] : units_) unit.fold(device);
    device_ = at::Device(device);
  }

 private:
  // pytorch-fid's own module groups the parts by numbers; the classifier is not used here.
  static std::string current_name(const std::string& stored) {
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kBlocks = {{
        {"blocks.0.0.", "Conv2d_1a_3x3."},
        {"blocks.0.1.", "Conv2d_2a_3x3."},
        {"blocks.0.2.", "Conv2d_2b_3x3."},
        {"blocks.1.0.", "Conv2d_3b_1x1."},
        {"blocks.1.1.", "Conv2d_4a_3x3."},
        {"blocks.2.0.", "Mixed_5b."},
        {"blocks.2.1.", "Mixed_5c."},
        {"blocks.2.2.", "Mixed_5d."},
        {"blocks.2.3.", "Mixed_6a."},
        {"blocks.2.4.", "Mixed_6b."},
        {"blocks.2.5.", "Mixed_6c."},
        {"blocks.2.6.", "Mixed_6d."},
        {"blocks.2.7.", "Mixed_6e."},
        {"blocks.3.0.", "Mixed_7a."},
        {"blocks.3.1.", "Mixed_7b."},
        {"blocks.3.2.", "Mixed_7c."},
    }};
    if (stored.ends_with(".num_batches_tracked") || stored.starts_with("fc.") ||
        stored.starts_with("AuxLogits.")) {
      return "";
    }
    for (const auto& [prefix, name] : kBlocks) {
      if (stored.starts_with(prefix)) return std::string(name) + stored.substr(prefix.size());
    }
    return stored;
  }

  void add(const std::string& name, const ConvShape& shape) {
    units_.emplace(name, ConvUnit(ParameterScope(parameters_) / name, shape));
  }

  void add_stem() {
    add("Conv2d_1a_3x3", {3, 32, {3, 3}, 2});
    add("Conv2d_2a_3x3", {32, 32, {3, 3}});
    add("Conv2d_2b_3x3", {32, 64, {3, 3}, 1, {1, 1}});
    add("Conv2d_3b_1x1", {64, 80});
    add("Conv2d_4a_3x3", {80, 192, {3, 3}});
  }

  void add_35(const std::string& name, int64_t in, int64_t pool) {
    add(name + ".branch1x1", {in, 64});
    add(name + ".branch5x5_1", {in, 48});
    add(name + ".branch5x5_2", {48, 64, {5, 5}, 1, {2, 2}});
    add(name + ".branch3x3dbl_1", {in, 64});
    add(name + ".branch3x3dbl_2", {64, 96, {3, 3}, 1, {1, 1}});
    add(name + ".branch3x3dbl_3", {96, 96, {3, 3}, 1, {1, 1}});
    add(name + ".branch_pool", {in, pool});
  }

  void add_17(const std::string& name, int64_t width) {
    add(name + ".branch1x1", {768, 192});
    add(name + ".branch7x7_1", {768, width});
    add(name + ".branch7x7_2", {width, width, {1, 7}, 1, {0, 3}});
    add(name + ".branch7x7_3", {width, 192, {7, 1}, 1, {3, 0}});
    add(name + ".branch7x7dbl_1", {768, width});
    add(name + ".branch7x7dbl_2", {width, width, {7, 1}, 1, {3, 0}});
    add(name + ".branch7x7dbl_3", {width, width, {1, 7}, 1, {0, 3}});
    add(name + ".branch7x7dbl_4", {width, width, {7, 1}, 1, {3, 0}});
    add(name + ".branch7x7dbl_5", {width, 192, {1, 7}, 1, {0, 3}});
    add(name + ".branch_pool", {768, 192});
  }

  void add_8(const std::string& name, int64_t in) {
    add(name + ".branch1x1", {in, 320});
    add(name + ".branch3x3_1", {in, 384});
    add(name + ".branch3x3_2a", {384, 384, {1, 3}, 1, {0, 1}});
    add(name + ".branch3x3_2b", {384, 384, {3, 1}, 1, {1, 0}});
    add(name + ".branch3x3dbl_1", {in, 448});
    add(name + ".branch3x3dbl_2", {448, 384, {3, 3}, 1, {1, 1}});
    add(name + ".branch3x3dbl_3a", {384, 384, {1, 3}, 1, {0, 1}});
    add(name + ".branch3x3dbl_3b", {384, 384, {3, 1}, 1, {1, 0}});
    add(name + ".branch_pool", {in, 192});
  }

  at::Tensor prepare(const at::Tensor& pixels) const {
    if (resize_ == InceptionResize::kTorchFidelity) {
      return (resize_by_corners(pixels, kSide) - 128) / 128;
    }
    const std::array<int64_t, 2> size = {kSide, kSide};
    return 2 * at::upsample_bilinear2d(pixels / 255, size, /*align_corners=*/false) - 1;
  }

  at::Tensor chain(at::Tensor x, const std::vector<std::string>& names) const {
    for (const auto& name : names) x = units_.at(name)(x);
    return x;
  }

  // Units `block`.`stem`1 to `count`, one after the other.
  at::Tensor branch(at::Tensor x, const std::string& block, const std::string& stem,
                    int count) const {
    for (int i = 1; i <= count; ++i) x = units_.at(block + "." + stem + std::to_string(i))(x);
    return x;
  }

  at::Tensor block_35(const std::string& name, const at::Tensor& x) const {
    return at::cat(
        {chain(x, {name + ".branch1x1"}), branch(x, name, "branch5x5_", 2),
         branch(x, name, "branch3x3dbl_", 3), chain(mean_pool(x), {name + ".branch_pool"})},
        1);
  }

  at::Tensor block_17(const std::string& name, const at::Tensor& x) const {
    return at::cat(
        {chain(x, {name + ".branch1x1"}), branch(x, name, "branch7x7_", 3),
         branch(x, name, "branch7x7dbl_", 5), chain(mean_pool(x), {name + ".branch_pool"})},
        1);
  }

  at::Tensor block_8(const std::string& name, const at::Tensor& x, const at::Tensor& pooled) const {
    const at::Tensor simple = branch(x, name, "branch3x3_", 1);
    const at::Tensor twice = branch(x, name, "branch3x3dbl_", 2);
    return at::cat(
        {chain(x, {name + ".branch1x1"}), chain(simple, {name + ".branch3x3_2a"}),
         chain(simple, {name + ".branch3x3_2b"}), chain(twice, {name + ".branch3x3dbl_3a"}),
         chain(twice, {name + ".branch3x3dbl_3b"}), chain(pooled, {name + ".branch_pool"})},
        1);
  }

  InceptionResize resize_;
  std::vector<NamedParameter> parameters_;
  std::map<std::string, ConvUnit> units_;
  std::vector<std::filesystem::path> files_;
  at::Device device_ = at::kCPU;
};
}  // namespace

std::unique_ptr<InceptionV3> InceptionV3::load(const std::filesystem::path& weights,
                                               InceptionResize resize) {
  return std::make_unique<InceptionV3Impl>(weights, resize);
}
}  // namespace trireme
