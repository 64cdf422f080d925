#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "trainer/models/diffusion_model.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using testing::HasSubstr;

constexpr auto kConfig = R"({"block_out_channels":[8,16],"layers_per_block":1,"norm_num_groups":4,
  "attention_head_dim":2,"cross_attention_dim":6,"num_class_embeds":3,"dropout":0.1,
  "down_block_types":["CrossAttnDownBlock2D","DownBlock2D"],
  "up_block_types":["UpBlock2D","CrossAttnUpBlock2D"]})";

class UNetTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = std::filesystem::path(testing::TempDir()) /
            (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".json");
    std::ofstream(file_) << kConfig;
  }
  void TearDown() override { std::filesystem::remove(file_); }

  std::unique_ptr<DiffusionModel> make(uint64_t seed = 1, double dropout = 0.0) const {
    return make_model(file_, dropout, seed);
  }
  static at::Tensor run(DiffusionModel& model, const Condition& condition,
                        const std::optional<DropoutKey>& key = std::nullopt) {
    const at::Tensor latents = at::linspace(-1, 1, 2 * 4 * 6 * 5).view({2, 4, 6, 5});
    return model.forward(latents, at::tensor({3, 700}), condition, key);
  }
  static Condition condition() {
    return {.encoder_hidden_states = at::linspace(-1, 1, 2 * 3 * 6).view({2, 3, 6}),
            .class_labels = at::tensor({0, 2}),
            .pooled_prompt_embeds = {},
            .add_time_ids = {}};
  }
  static std::string refusal(DiffusionModel& model, const Condition& condition) {
    try {
      run(model, condition);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  }
  std::filesystem::path file_;
};

TEST_F(UNetTest, EveryParameterGetsAGradient) {
  const auto model = make();
  run(*model, condition()).square().sum().backward();
  for (const auto& [name, parameter] : model->named_parameters()) {
    EXPECT_TRUE(parameter.grad().defined()) << name;
  }
}

TEST_F(UNetTest, ComputesWithTheStorageThatParametersAreRedirectedTo) {
  const auto model = make();
  const auto last = model->named_parameters().back();  // The output's bias.
  ASSERT_EQ(last.first, "conv_out.bias");
  const at::Tensor before = run(*model, condition()).detach();
  at::Tensor parameter = last.second;
  at::Tensor flat = at::zeros({10});
  flat.slice(0, 3, 7).copy_(parameter.detach());
  parameter.set_data(flat.slice(0, 3, 7));
  EXPECT_TRUE(at::equal(run(*model, condition()), before));
  flat.add_(0.5);
  EXPECT_TRUE(at::allclose(run(*model, condition()), before + 0.5));
}

TEST_F(UNetTest, RandomWeightsDependOnTheSeedAndOnNothingElse) {
  const at::Generator global = at::globalContext().defaultGenerator(at::kCPU);
  const at::Tensor state = global.get_state();
  const at::Tensor first = run(*make(5), condition());
  at::rand({100});
  EXPECT_TRUE(at::equal(run(*make(5), condition()), first));
  EXPECT_FALSE(at::equal(run(*make(6), condition()), first));
  at::Generator again = at::globalContext().defaultGenerator(at::kCPU);
  again.set_state(state);
  (void)make(7);
  EXPECT_TRUE(at::equal(again.get_state(), state)) << "the global generator was drawn from";
}

TEST_F(UNetTest, DropoutActsInTrainingOnlyAndLeavesTheGlobalGeneratorAlone) {
  const auto model = make();
  const DropoutKey key{.seed = 9, .step = 4, .first_position = 16};
  const at::Tensor state = at::globalContext().defaultGenerator(at::kCPU).get_state();
  const at::Tensor dropped = run(*model, condition(), key);
  EXPECT_TRUE(at::equal(at::globalContext().defaultGenerator(at::kCPU).get_state(), state));
  EXPECT_TRUE(at::equal(run(*model, condition(), key), dropped));
  EXPECT_FALSE(at::equal(run(*model, condition()), dropped));
  const DropoutKey next{.seed = 9, .step = 5, .first_position = 16};
  EXPECT_FALSE(at::equal(run(*model, condition(), next), dropped));
  EXPECT_FALSE(at::equal(run(*make(1, 0.5), condition(), key), dropped));  // The argument wins.
}

TEST_F(UNetTest, ResolvedConfigsAreEqualWhereTheyMeanTheSame) {
  const auto resolved = [&](const std::string& more) {
    std::ofstream(file_) << "{" + more + ", " + (kConfig + 1);
    return make()->resolved_config();
  };
  const std::string plain = resolved(R"("_diffusers_version": "0.20")");
  EXPECT_EQ(resolved(R"("norm_eps": 1e-5, "only_cross_attention": false, "time_embedding_dim": null,
                         "sample_size": 64)"),
            plain);
  EXPECT_NE(resolved(R"("norm_eps": 1e-3)"), plain);
  EXPECT_NE(resolved(R"("flip_sin_to_cos": false)"), plain);
  EXPECT_THAT(plain, HasSubstr("attention_head_dim = [2,2]\n"));
}

TEST_F(UNetTest, NamesWhatTheDataLacks) {
  const auto model = make();
  Condition wrong = condition();
  wrong.encoder_hidden_states = at::ones({2, 3, 7});
  EXPECT_THAT(refusal(*model, wrong), HasSubstr("width 6"));
  EXPECT_THAT(refusal(*model, wrong), HasSubstr("(2, 3, 7)"));
  wrong.encoder_hidden_states = at::Tensor();
  EXPECT_THAT(refusal(*model, wrong), HasSubstr("width 6"));
  wrong = condition();
  wrong.class_labels = at::Tensor();
  EXPECT_THAT(refusal(*model, wrong), HasSubstr("class labels"));
  EXPECT_THROW((void)model->forward(at::ones({1, 3, 4, 4}), at::tensor({1}), condition(), {}),
               InputError);
}

TEST_F(UNetTest, SavesAFolderThatItLoads) {
  const auto model = make(3);
  const auto folder = file_.parent_path() / "unet_test_saved";
  std::filesystem::create_directories(folder);
  save_model_folder(folder, model->layout(), model->named_parameters());
  const auto loaded = load_model(folder, 0.0);
  EXPECT_TRUE(at::equal(run(*loaded, condition()), run(*model, condition())));
  EXPECT_EQ(loaded->config_json(), model->config_json());
  std::filesystem::remove_all(folder);
}
}  // namespace
}  // namespace trireme
