#include "trainer/checkpoint/checkpoint.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "core/sha256.h"
#include "trainer/checkpoint/manifest.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "trireme-checkpoint-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    checkpoints_ = folder_ / "checkpoints";
  }
  void TearDown() override { fs::remove_all(folder_); }

  static CheckpointContent content(int64_t step) {
    CheckpointContent result;
    result.state = {.step = step,
                    .samples = 64 * step,
                    .metrics_size_bytes = 1234,
                    .config_toml = "[run]\nseed = 7\n",
                    .best_metric = 0.25,
                    .evaluations = 2,
                    .evaluations_without_improvement = 1,
                    .owes_evaluation = true};
    result.layout = {.folder = "unet",
                     .texts = {{"config.json", "{\"_class_name\": \"UNet2DConditionModel\"}"}}};
    result.model = {{"conv_in.weight", at::full({2, 3}, static_cast<double>(step))}};
    result.ema = {{"conv_in.weight", at::full({2, 3}, 0.5)}};
    result.optimizer = {{"conv_in.weight.exp_avg", at::zeros({2, 3})}};
    result.extra_files = {{"scheduler/scheduler_config.json", "{}"}};
    return result;
  }
  fs::path write(int64_t step, int64_t keep = 3) {
    return write_checkpoint(checkpoints_, content(step), keep);
  }

  std::set<std::string> names() {
    std::set<std::string> result;
    for (const auto& entry : fs::directory_iterator(checkpoints_))
      result.insert(entry.path().filename().string());
    return result;
  }
  static std::string what(const fs::path& checkpoint, Verify verify = Verify::kSizes) {
    try {
      (void)open_checkpoint(checkpoint, verify);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  static void overwrite(const fs::path& file, uint64_t offset, char byte) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(byte);
  }

  fs::path folder_;
  fs::path checkpoints_;
};

TEST_F(CheckpointTest, HoldsWhatWasWritten) {
  const fs::path folder = write(500);
  EXPECT_EQ(folder.filename(), "step-00000500");
  const CheckpointState state = open_checkpoint(folder, Verify::kChecksums);
  EXPECT_EQ(state.step, 500);
  EXPECT_EQ(state.samples, 32000);
  EXPECT_EQ(state.metrics_size_bytes, 1234U);
  EXPECT_EQ(state.config_toml, "[run]\nseed = 7\n");
  EXPECT_EQ(state.best_metric, 0.25);
  EXPECT_EQ(state.evaluations, 2);
  EXPECT_EQ(state.evaluations_without_improvement, 1);
  EXPECT_TRUE(state.owes_evaluation);
  const SafetensorsReader weights(folder / "unet" / "diffusion_pytorch_model.safetensors");
  EXPECT_TRUE(at::equal(weights.read("conv_in.weight"), at::full({2, 3}, 500.0)));
  const SafetensorsReader ema(folder / "ema" / "diffusion_pytorch_model.safetensors");
  EXPECT_TRUE(at::equal(ema.read("conv_in.weight"), at::full({2, 3}, 0.5)));
  EXPECT_TRUE(fs::exists(folder / "scheduler" / "scheduler_config.json"));
}

TEST_F(CheckpointTest, ManifestListsEveryOtherFile) {
  const fs::path folder = write(1);
  const Manifest manifest = read_manifest(folder);
  size_t num_files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    num_files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(manifest.files.size() + 1, num_files);
  EXPECT_EQ(manifest.files.at("unet/config.json").sha256,
            sha256_of_file(folder / "unet" / "config.json"));
}

TEST_F(CheckpointTest, EqualContentGivesEqualBytes) {
  const std::string first = read_text_file(write(1) / "manifest.json", "manifest");
  fs::remove_all(checkpoints_);
  EXPECT_EQ(read_text_file(write(1) / "manifest.json", "manifest"), first);
}

TEST_F(CheckpointTest, AMetricThatIsNotFiniteSurvives) {
  CheckpointContent nothing_yet = content(1);
  nothing_yet.state.best_metric = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(std::isnan(
      open_checkpoint(write_checkpoint(checkpoints_, nothing_yet, 1), Verify::kSizes).best_metric));
}

TEST_F(CheckpointTest, LatestIsARelativeLinkToTheNewest) {
  write(1);
  write(2);
  EXPECT_EQ(fs::read_symlink(checkpoints_ / "latest"), "step-00000002");
  EXPECT_EQ(open_checkpoint(checkpoints_ / "latest", Verify::kChecksums).step, 2);
}

TEST_F(CheckpointTest, TheBestIsKeptBesideTheNewest) {
  for (int64_t step = 1; step <= 6; ++step) {
    CheckpointContent next = content(step);
    next.state.best_step = step < 3 ? step : 3;
    next.state.best_step_metric = 0.125;
    next.state.updates = step - 1;
    next.state.loss_average = 0.1;
    write_checkpoint(checkpoints_, next, 2);
  }
  EXPECT_THAT(names(), UnorderedElementsAre("step-00000003", "step-00000005", "step-00000006",
                                            "latest", "best"));
  EXPECT_EQ(fs::read_symlink(checkpoints_ / "best"), "step-00000003");
  const CheckpointState state = open_checkpoint(checkpoints_ / "latest", Verify::kChecksums);
  EXPECT_EQ(state.best_step, 3);
  EXPECT_EQ(state.best_step_metric, 0.125);
  EXPECT_EQ(state.updates, 5);
  EXPECT_EQ(state.loss_average, 0.1);
}

TEST_F(CheckpointTest, OnlyTheNewestAreKept) {
  for (int64_t step = 1; step <= 5; ++step) write(step, 2);
  EXPECT_THAT(names(), UnorderedElementsAre("step-00000004", "step-00000005", "latest"));
}

TEST_F(CheckpointTest, KeepZeroKeepsAll) {
  for (int64_t step = 1; step <= 3; ++step) write(step, 0);
  EXPECT_EQ(names().size(), 4U);
}

TEST_F(CheckpointTest, TheOneJustWrittenIsNeverPruned) {
  write(9, 1);  // Passed over by a resume, say, which then came to step 5.
  write(5, 1);
  EXPECT_THAT(names(), UnorderedElementsAre("step-00000005", "step-00000009", "latest"));
  EXPECT_EQ(fs::read_symlink(checkpoints_ / "latest"), "step-00000005");
}

TEST_F(CheckpointTest, LeftoversOfAKilledRunAreRemovedAndNeverFound) {
  fs::create_directories(checkpoints_ / ".tmp-step-00000007" / "unet");
  fs::create_directories(checkpoints_ / ".tmp-removed-step-00000001");
  EXPECT_EQ(newest_checkpoint(checkpoints_), std::nullopt);
  write(3);
  EXPECT_THAT(names(), UnorderedElementsAre("step-00000003", "latest"));
}

TEST_F(CheckpointTest, TheSameStepIsReplacedWhole) {
  write(4);
  CheckpointContent again = content(4);
  again.model = {{"conv_in.weight", at::full({2, 3}, -1.0)}};
  const fs::path folder = write_checkpoint(checkpoints_, again, 3);
  EXPECT_EQ(open_checkpoint(folder, Verify::kChecksums).step, 4);
  const SafetensorsReader weights(folder / "unet" / "diffusion_pytorch_model.safetensors");
  EXPECT_TRUE(at::equal(weights.read("conv_in.weight"), at::full({2, 3}, -1.0)));
  EXPECT_THAT(names(), UnorderedElementsAre("step-00000004", "latest"));
}

TEST_F(CheckpointTest, WithoutFolderOrCheckpointsThereIsNone) {
  EXPECT_EQ(newest_checkpoint(checkpoints_), std::nullopt);
  fs::create_directories(checkpoints_ / "step-0000000x");
  fs::create_directories(checkpoints_ / "step-12");  // Not how a step is written.
  EXPECT_EQ(newest_checkpoint(checkpoints_), std::nullopt);
}

TEST_F(CheckpointTest, UnusableOnesArePassedOver) {
  const fs::path good = write(1);
  const fs::path truncated = write(2);
  const fs::path flipped = write(3);
  const fs::path unfinished = checkpoints_ / "step-00000004";  // No manifest.
  fs::create_directories(unfinished / "unet");
  fs::resize_file(truncated / "optimizer.safetensors", 10);
  overwrite(flipped / "unet" / "diffusion_pytorch_model.safetensors",
            fs::file_size(flipped / "unet" / "diffusion_pytorch_model.safetensors") - 1, 1);
  EXPECT_EQ(newest_checkpoint(checkpoints_), good);
}

TEST_F(CheckpointTest, ADanglingLatestDoesNotMatter) {
  const fs::path good = write(1);
  fs::remove(checkpoints_ / "latest");
  fs::create_symlink("step-00000099", checkpoints_ / "latest");
  EXPECT_EQ(newest_checkpoint(checkpoints_), good);
  write(2);
  EXPECT_EQ(fs::read_symlink(checkpoints_ / "latest"), "step-00000002");
}

TEST_F(CheckpointTest, DamageIsNamed) {
  const fs::path folder = write(1);
  const fs::path weights = folder / "unet" / "diffusion_pytorch_model.safetensors";
  overwrite(weights, fs::file_size(weights) - 1, 1);
  EXPECT_EQ(what(folder, Verify::kSizes), "no error");
  EXPECT_THAT(what(folder, Verify::kChecksums), HasSubstr("another SHA-256"));
  fs::resize_file(weights, 9);
  EXPECT_THAT(what(folder), HasSubstr("has 9 bytes, but the manifest says"));
  fs::remove(weights);
  EXPECT_THAT(what(folder), HasSubstr("lacks its file unet/diffusion_pytorch_model.safetensors"));
  fs::remove(folder / "manifest.json");
  EXPECT_THAT(what(folder), HasSubstr("manifest"));
}

TEST_F(CheckpointTest, HostileManifestsAreInputErrors) {
  const fs::path folder = write(1);
  const std::string good = read_text_file(folder / "manifest.json", "manifest");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    std::ofstream(folder / "manifest.json") << text;
    return what(folder);
  };
  EXPECT_THAT(with("\"config.toml\"", "\"../../config.toml\""), HasSubstr("not a path inside"));
  EXPECT_THAT(with("\"config.toml\"", "\"/etc/passwd\""), HasSubstr("not a path inside"));
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"), HasSubstr("version"));
  EXPECT_THAT(with("trireme-checkpoint", "other"), HasSubstr("format"));
  EXPECT_THAT(with("\"step\": 1", "\"step\": 2"), HasSubstr("must agree"));
  EXPECT_THAT(with("\"step\": 1", "\"step\": -1"), HasSubstr("lacks `step`"));
  EXPECT_THAT(with("\"size\"", "\"length\""), HasSubstr("lacks a size"));
  EXPECT_THAT(with("{", "["), HasSubstr("not a JSON object"));
}

TEST_F(CheckpointTest, ARenamedStepIsFound) {
  fs::rename(write(1), checkpoints_ / "step-00000008");
  EXPECT_THAT(what(checkpoints_ / "step-00000008"), HasSubstr("must agree"));
}

TEST_F(CheckpointTest, AnUnwritableFolderIsAUsageError) {
  std::ofstream(folder_ / "file") << "x";
  EXPECT_THROW((void)write_checkpoint(folder_ / "file" / "checkpoints", content(1), 1), UsageError);
}
}  // namespace
}  // namespace trireme
