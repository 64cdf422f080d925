#include "trainer/model_agreement.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"
#include "tests/mpi/world.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
using test::world;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kConfig = "norm_eps = 1e-05\nnorm_num_groups = 8\n";

NamedParameters three_parameters() {
  return {{"a", torch::ones({4})}, {"b", torch::ones({2, 3})}, {"c", torch::ones({5})}};
}

// What a rank is told, of which the last one is different; "" where nothing is wrong.
template <class Agree>
std::string complaint(const Agree& agree) {
  try {
    agree(world().rank() == world().world_size() - 1);
    return "";
  } catch (const UsageError& error) {
    return error.what();
  } catch (const PeerFailedError&) {
    return "a peer failed";
  }
}

// What the last rank is told; the others are told that a peer failed.
void expect_last_rank_is_told(const std::string& text,
                              const ::testing::Matcher<const std::string&>& words) {
  if (world().rank() == world().world_size() - 1) {
    EXPECT_THAT(text, words);
  } else {
    EXPECT_EQ(text, "a peer failed");
  }
}

TEST(ModelAgreementTest, EqualModelsAndPlansPass) {
  const NamedParameters parameters = three_parameters();
  agree_on_model(world(), kConfig, parameters);
  agree_on_buckets(world(), parameters, {{2}, {1, 0}});
}

TEST(ModelAgreementTest, AnotherBucketPlanIsRefusedOnAllRanksAndNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const std::string text = complaint([](bool is_last) {
    agree_on_buckets(world(), three_parameters(),
                     is_last ? BucketPlan{{2, 1}, {0}} : BucketPlan{{2}, {1, 0}});
  });
  const std::string last = std::to_string(world().world_size() - 1);
  expect_last_rank_is_told(
      text, AllOf(HasSubstr("gradient buckets"), HasSubstr("rank 0 has 'b' in bucket 1"),
                  HasSubstr("rank " + last + " has 'b' in bucket 0")));
}

TEST(ModelAgreementTest, AnotherShapeIsRefusedOnAllRanksAndNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const std::string text = complaint([](bool is_last) {
    NamedParameters parameters = three_parameters();
    if (is_last) parameters[1].second = torch::ones({3, 2});
    agree_on_model(world(), kConfig, parameters);
  });
  expect_last_rank_is_told(
      text, AllOf(HasSubstr("'b' of shape (2, 3)"), HasSubstr("'b' of shape (3, 2)")));
}

// More than one part of a checksum, and in channels_last as well.
TEST(ModelAgreementTest, OneOtherElementIsRefusedOnAllRanksAndItsTensorNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const std::string text = complaint([&](bool is_last) {
      at::Tensor values = torch::ones({2, 3, 1024, 1024}).contiguous(format);
      if (is_last) values[1][2][1023][1023] = 1.0000001F;
      agree_on_model(world(), kConfig, {{"a", torch::ones({4})}, {"b", values}});
    });
    expect_last_rank_is_told(text, AllOf(HasSubstr("models differ"), HasSubstr("'b' of shape"),
                                         HasSubstr("with checksum")));
  }
}

TEST(ModelAgreementTest, AnotherConfigurationIsRefusedOnAllRanksAndItsKeyNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const std::string text = complaint([](bool is_last) {
    agree_on_model(world(), is_last ? "norm_eps = 1e-05\nnorm_num_groups = 16\n" : kConfig,
                   three_parameters());
  });
  expect_last_rank_is_told(text, AllOf(HasSubstr("rank 0 has norm_num_groups = 8"),
                                       HasSubstr("has norm_num_groups = 16")));
}

TEST(ModelAgreementTest, AnotherCheckpointIsRefusedOnAllRanksAndItsFileNamed) {
  if (world().world_size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  const auto folder =
      std::filesystem::temp_directory_path() / ("trireme_agreement_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const bool is_last = world().rank() == world().world_size() - 1;
  std::ofstream(folder / "optimizer.safetensors") << (is_last ? "other" : "equal");
  const Manifest manifest = describe_folder(folder, 1);
  std::ofstream(folder / Manifest::kFileName) << manifest_json(manifest);
  const std::string text = complaint([&](bool) { agree_on_checkpoint(world(), folder); });
  std::filesystem::remove_all(folder);
  expect_last_rank_is_told(
      text, AllOf(HasSubstr("checkpoints"), HasSubstr("optimizer.safetensors with SHA-256")));
}
}  // namespace
}  // namespace trireme
