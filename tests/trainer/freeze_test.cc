#include "trainer/freeze.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace trireme {
namespace {
using ::testing::ElementsAre;

const std::vector<std::string> kNames = {
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    "down_blocks.0.resnets.0.conv1.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q.weight",
    "up_blocks.0.resnets.0.conv1.weight",
    "up_blocks.1.resnets.0.conv1.weight",
    "mid_block.resnets.0.conv1.weight",
    "conv_norm_out.weight",
    "conv_out.weight"};

std::vector<int> trained(const FreezeOptions& options) {
  std::vector<int> places;
  const auto flags = select_trained(kNames, options);
  for (size_t i = 0; i < flags.size(); ++i) {
    if (flags[i]) places.push_back(static_cast<int>(i));
  }
  return places;
}

TEST(FreezeTest, NothingIsFrozenByDefault) {
  EXPECT_THAT(trained({}), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(FreezeTest, GroupsHoldWhatTheirNamesSay) {
  EXPECT_THAT(trained({.groups = {"encoder"}}), ElementsAre(5, 6, 7, 8, 9));
  EXPECT_THAT(trained({.groups = {"decoder"}}), ElementsAre(0, 1, 2, 3, 4, 7));
  EXPECT_THAT(trained({.groups = {"all_but_attention"}}), ElementsAre(3, 4));
  EXPECT_THAT(trained({.groups = {"all_but_cross_attention"}}), ElementsAre(4));
  EXPECT_THAT(trained({.groups = {"encoder", "decoder"}}), ElementsAre(7));
}

TEST(FreezeTest, BlocksCountFromTheInputThroughTheMiddle) {
  EXPECT_THAT(trained({.first_blocks = 1}), ElementsAre(1, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(trained({.first_blocks = 3}), ElementsAre(1, 5, 6, 8, 9));
  EXPECT_THAT(trained({.first_blocks = 5}), ElementsAre(1, 8, 9));
  EXPECT_THROW(trained({.first_blocks = 6}), UsageError);
}

TEST(FreezeTest, PatternsAddToGroups) {
  EXPECT_THAT(trained({.patterns = {"attn2"}, .groups = {"all_but_attention"}}), ElementsAre(3));
  EXPECT_THROW(trained({.patterns = {"."}}), UsageError);
  EXPECT_THROW(trained({.patterns = {"("}}), UsageError);
}

TEST(FreezeTest, AnAdaptersNamesFallIntoTheGroupsOfTheirLayers) {
  const auto flags =
      select_trained({"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
                      "mid_block.attentions.0.proj_in.lora_B.weight"},
                     {.groups = {"encoder"}});
  EXPECT_THAT(flags, ElementsAre(false, true));
}
}  // namespace
}  // namespace trireme
