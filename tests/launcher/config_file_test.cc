#include "launcher/config_file.h"

#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "launcher/config_schema.h"

namespace trireme {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr char kMinimal[] = R"([run]
steps = 10
[model]
weights = "base"
[data]
train = ["train.h5"]
[batch]
global = 8
)";

class ConfigFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "trireme-config-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& text) {
    const auto file = folder_ / "c.toml";
    std::ofstream(file) << text;
    return file;
  }
  LoadedConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return load_config(write(text), overrides);
  }
  // The message of the UsageError, without the folder.
  std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
    try {
      (void)load(text, overrides);
    } catch (const UsageError& error) {
      std::string message = error.what();
      const std::string prefix = folder_.string() + "/";
      while (message.find(prefix) != std::string::npos)
        message.erase(message.find(prefix), prefix.size());
      return message;
    } catch (const std::exception& error) {
      return std::string("another exception: ") + error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

std::string minimal_and(const std::string& more) { return kMinimal + more; }  // From line 9 on.

TEST_F(ConfigFileTest, AbsentKeysHaveTheirDefaults) {
  const LoadedConfig loaded = load(kMinimal);
  EXPECT_EQ(loaded.config.run.seed, 42U);
  EXPECT_EQ(loaded.config.optim.lr, 1e-4);
  EXPECT_EQ(loaded.config.run.dir, "runs/run");
  EXPECT_EQ(loaded.config.lr_schedule.name, LrScheduleName::kCosine);
}

TEST_F(ConfigFileTest, KeysSetAreThoseThatFileAndOverridesGave) {
  const LoadedConfig loaded = load(kMinimal, {"optim.lr=1"});
  EXPECT_THAT(loaded.keys_set,
              ElementsAre("batch.global", "data.train", "model.weights", "optim.lr", "run.steps"));
  EXPECT_TRUE(loaded.is_set("optim.lr"));
  EXPECT_FALSE(loaded.is_set("objective.prediction"));
}

TEST_F(ConfigFileTest, UnknownKeyNamesFileLineAndNearestKey) {
  EXPECT_EQ(error_of(minimal_and("[optim]\nlrr = 1e-3\n")),
            "c.toml:10: unknown key 'optim.lrr'; did you mean 'optim.lr'?");
}

TEST_F(ConfigFileTest, KeyInTheWrongTableIsNamedInTheRightOne) {
  EXPECT_EQ(error_of("weight_decay = 1.0\n"),
            "c.toml:1: unknown key 'weight_decay'; did you mean 'optim.weight_decay'?");
  EXPECT_THAT(error_of(minimal_and("[optim]\nwarmup_steps = 3\n")),
              HasSubstr("did you mean 'lr_schedule.warmup_steps'?"));
}

TEST_F(ConfigFileTest, UnknownTableNamesTheNearest) {
  EXPECT_EQ(error_of(minimal_and("[optm]\nlr = 1e-3\n")),
            "c.toml:9: unknown table 'optm'; did you mean 'optim'?");
}

TEST_F(ConfigFileTest, DeepTablesAreUnknownKeys) {
  EXPECT_THAT(error_of(minimal_and("[optim.adamw]\nlr = 1e-3\n")),
              StartsWith("c.toml:9: unknown key 'optim.adamw'"));
  EXPECT_THAT(error_of("[[run]]\nsteps = 1\n"),
              HasSubstr("'run' must be a table, [run], but is a list"));
  EXPECT_THAT(error_of("optim = 3\n"),
              HasSubstr("'optim' must be a table, [optim], but is an integer"));
}

TEST_F(ConfigFileTest, TheFirstWrongLineIsReportedAndTheOthersCounted) {
  const std::string message =
      error_of(minimal_and("[sample]\nstep = 3\n[ema]\ndecays = 1\n[eval]\nx = 1\n"));
  EXPECT_THAT(message, StartsWith("c.toml:10: unknown key 'sample.step'"));
  EXPECT_THAT(message, HasSubstr("(2 more lines of this file are wrong.)"));
}

TEST_F(ConfigFileTest, IntegersServeAsFloatsAndNotTheOtherWay) {
  EXPECT_EQ(load(minimal_and("[optim]\nlr = 1\n")).config.optim.lr, 1.0);
  EXPECT_EQ(load(minimal_and("[optim]\nbetas = [0, 0.5]\n")).config.optim.betas[1], 0.5);
  EXPECT_EQ(error_of(minimal_and("[sample]\nsteps = 1e1\n")),
            "c.toml:10: sample.steps must be an integer, but is a float.");
}

TEST_F(ConfigFileTest, WrongTypesAreNamed) {
  EXPECT_THAT(error_of(minimal_and("[data]\n")), HasSubstr("not valid TOML"));  // Defined twice.
  EXPECT_EQ(error_of(minimal_and("[optim]\nlr = \"1e-4\"\n")),
            "c.toml:10: optim.lr must be a number, but is a string.");
  EXPECT_EQ(error_of(minimal_and("[optim]\nbetas = [0.9]\n")),
            "c.toml:10: optim.betas must be a list of two numbers, but is a list.");
  EXPECT_EQ(error_of(minimal_and("[sample]\nprompts = [1]\n")),
            "c.toml:10: sample.prompts must be a list of strings, but is a list.");
  EXPECT_EQ(error_of(minimal_and("[parallel]\nshard_optimizer = 1\n")),
            "c.toml:10: parallel.shard_optimizer must be true or false, but is an integer.");
  EXPECT_THAT(error_of(minimal_and("[optim]\nname = 2024-01-01\n")),
              HasSubstr("is a date or time"));
}

TEST_F(ConfigFileTest, ListsOfNumbersAreReadCheckedAndWritten) {
  const LoadedConfig loaded = load(
      kMinimal,
      {"batch.grow_at=[640, 6400]", "batch.grow_to=[128, 256]", "noise.trained_betas=[0.25, 0.5]"});
  EXPECT_THAT(loaded.config.batch.grow_at, ElementsAre(640, 6400));
  EXPECT_EQ(loaded.config.noise.timesteps, 2);  // Follows the list.
  EXPECT_THAT(write_config(loaded.config), HasSubstr("trained_betas = [0.25, 0.5]"));
  EXPECT_THAT(write_config(loaded.config), HasSubstr("grow_at = [640, 6400]"));
  EXPECT_THAT(error_of(minimal_and("[data2]\n")), HasSubstr("data2"));
  EXPECT_EQ(error_of(minimal_and("[noise]\ntrained_betas = [0.5, \"a\"]\n")),
            "c.toml:10: noise.trained_betas must be a list of numbers, but is a list.");
  EXPECT_THAT(error_of(minimal_and("[noise]\ntrained_betas = [0.5, 1]\n")),
              HasSubstr("in (0, 1), but is [0.5, 1.0]"));
}

TEST_F(ConfigFileTest, OneWarmUpReplacesAnother) {
  EXPECT_EQ(load(kMinimal).config.lr_schedule.warmup_steps, 100);
  const Config config = load(kMinimal, {"lr_schedule.warmup_fraction=0.1"}).config;
  EXPECT_EQ(config.lr_schedule.warmup_steps, 0);
  EXPECT_THAT(error_of(minimal_and("[lr_schedule]\nwarmup_steps = 5\nwarmup_samples = 9\n")),
              HasSubstr("the warm-up is given more than once"));
  // What is written is read back.
  EXPECT_EQ(load(write_config(config)).config.lr_schedule.warmup_fraction, 0.1);
}

TEST_F(ConfigFileTest, SyntaxErrorsNameTheLine) {
  EXPECT_THAT(error_of("[run]\nsteps = \n"), StartsWith("c.toml:2: not valid TOML: "));
  EXPECT_THAT(error_of("[run]\nname = \"\xff\"\n"), StartsWith("c.toml:2: not valid TOML: "));
}

TEST_F(ConfigFileTest, MissingFileIsAUsageError) {
  try {
    (void)load_config(folder_ / "none.toml");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("none.toml"));
  }
}

TEST_F(ConfigFileTest, ValuesOutOfRangeAreRefused) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"optim.lr=0", "optim.lr must be greater than 0, but is 0.0"},
      {"optim.lr=-1e-4", "optim.lr must be greater than 0"},
      {"optim.lr=nan", "optim.lr must be greater than 0"},
      {"optim.lr=inf", "optim.lr must be greater than 0"},
      {"optim.betas=[0.9, 1.0]", "optim.betas must be in [0, 1), but is [0.9, 1.0]"},
      {"data.flip=1.5", "data.flip must be in [0, 1], but is 1.5"},
      {"data.caption_dropout=-0.1", "data.caption_dropout must be in [0, 1]"},
      {"run.steps=0", "run.steps must be in [1, "},
      {"run.seed=-1", "run.seed must be at least 0, but is -1"},
      {"batch.global=-8", "batch.global must be in [1, "},
      {"noise.beta_start=0.0", "noise.beta_start must be in (0, 1)"},
      {"ema.decay=1.0", "ema.decay must be in [0, 1)"},
      {"parallel.shards=6", "parallel.shards is 6, but must be 0 or a power of two, such as 4"},
      {"parallel.backend=gloo", "must be one of auto, nccl, shm, mpi"},
      {"optim.name=adamW", "did you mean \"adamw\"?"},
  };
  for (const auto& [override_text, expected] : cases) {
    const std::string message = error_of(kMinimal, {override_text});
    EXPECT_THAT(message, AllOf(HasSubstr("--set "), HasSubstr(expected))) << override_text;
  }
}

TEST_F(ConfigFileTest, ExclusivePairsNeedExactlyOne) {
  EXPECT_EQ(
      error_of("[model]\nweights=\"a\"\n[data]\ntrain=[\"t\"]\n[batch]\nglobal=1\n"),
      "c.toml: neither run.steps nor run.epochs is set; exactly one must be. Add one of them.");
  EXPECT_EQ(error_of(kMinimal, {"run.epochs=2"}),
            "--set run.epochs: both run.steps and run.epochs are set; exactly one must be. Remove "
            "one of them.");
  EXPECT_THAT(error_of(kMinimal, {"batch.per_rank=2"}),
              HasSubstr("both batch.global and batch.per_rank"));
  EXPECT_THAT(error_of(kMinimal, {"model.config=c.json"}),
              HasSubstr("both model.weights and model.config"));
  EXPECT_THAT(error_of(kMinimal, {"data.validation=v.h5", "data.validation_fraction=0.1"}),
              HasSubstr("at most one may be"));
  EXPECT_THAT(error_of(kMinimal, {"data.train=[]"}), HasSubstr("data.train names no file"));
}

TEST_F(ConfigFileTest, EarlyStoppingNeedsSomethingToWatch) {
  EXPECT_THAT(error_of(kMinimal, {"early_stopping.patience=2"}), HasSubstr("no validation data"));
  EXPECT_THAT(error_of(kMinimal, {"early_stopping.patience=2", "data.validation_fraction=0.1",
                                  "early_stopping.metric=val_loss_ema"}),
              HasSubstr("Set ema.decay"));
}

TEST_F(ConfigFileTest, FreezePatternsAreRegularExpressions) {
  EXPECT_EQ(load(kMinimal, {R"(freeze.patterns=['^down_blocks\.'])"}).config.freeze.patterns.size(),
            1U);
  EXPECT_THAT(error_of(kMinimal, {"freeze.patterns=['(']"}),
              HasSubstr("is not a regular expression"));
}

TEST_F(ConfigFileTest, OverridesTakeTomlOrBareStrings) {
  const Config config =
      load(kMinimal, {"run.name=two words", "run.dir=\"quoted\"", "optim.lr=2e-4",
                      "data.train=a.h5", "data.validation=[\"v.h5\", 'w.h5']",
                      "objective.prediction=v_prediction", "data.shuffle=false", "model.weights=7",
                      "optim.betas=[0.5,0.6]", "run.seed=9223372036854775807"})
          .config;
  EXPECT_EQ(config.run.name, "two words");
  EXPECT_EQ(config.run.dir, "quoted");
  EXPECT_EQ(config.optim.lr, 2e-4);
  EXPECT_THAT(config.data.train, ElementsAre("a.h5"));
  EXPECT_THAT(config.data.validation, ElementsAre("v.h5", "w.h5"));
  EXPECT_EQ(config.objective.prediction, Prediction::kVPrediction);
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(config.model.weights, "7");
  EXPECT_EQ(config.optim.betas[0], 0.5);
  EXPECT_EQ(config.run.seed, 9223372036854775807U);
}

TEST_F(ConfigFileTest, LaterOverridesWin) {
  EXPECT_EQ(load(kMinimal, {"run.steps=20", "run.steps=30"}).config.run.steps, 30);
}

TEST_F(ConfigFileTest, BadOverridesAreNamed) {
  EXPECT_EQ(error_of(kMinimal, {"optim.lrr=1"}),
            "--set optim.lrr=1: unknown key 'optim.lrr'; did you mean 'optim.lr'?");
  EXPECT_THAT(error_of(kMinimal, {"optim.lr"}), HasSubstr("expected key.path=VALUE"));
  EXPECT_THAT(error_of(kMinimal, {"optim.lr=fast"}),
              HasSubstr("must be a number, but 'fast' is not"));
  EXPECT_THAT(error_of(kMinimal, {"optim.lr=1\n[ema]\ndecay=0.5"}),
              HasSubstr("must be a number, but"));
  EXPECT_THAT(error_of(kMinimal, {"optim=3"}), HasSubstr("unknown key 'optim'"));
  EXPECT_THAT(error_of(kMinimal, {"run.name=\xff"}), HasSubstr("must be UTF-8 text"));
}

TEST_F(ConfigFileTest, RunDirArgumentWins) {
  EXPECT_EQ(load_config(write(kMinimal), {"run.dir=a"}, "b").config.run.dir, "b");
}

// A value unlike the default, within range.
ConfigValue another_value(const ConfigKey& key) {
  const ConfigValue value = key.get(Config{});
  if (key.name == "parallel.shards") return int64_t{4};
  if (key.name == "freeze.patterns") return std::vector<std::string>{R"(a\.b "c")"};
  if (key.name == "freeze.groups") return std::vector<std::string>{"encoder"};
  if (key.name == "optim.lr_multipliers") {
    return std::map<std::string, double>{{R"(a\.b "c")", 0.1 + 0.2}, {"lora_B", 16.0}};
  }
  if (key.name == "early_stopping.metric") return std::string("val_loss_band_1");
  if (key.name == "batch.grow_at") return std::vector<int64_t>{40, 80};
  if (key.name == "batch.grow_to") return std::vector<int64_t>{7, 9};
  if (key.name == "objective.timestep_range") return std::array{5e-324, 1.0 / 3};
  if (key.name == "optim.lr_scaling") return std::string("power");  // Not with a growing batch.
  if (!key.choices.empty()) return std::string(key.choices.back());
  if (std::holds_alternative<std::vector<int64_t>>(value)) return std::vector<int64_t>{2, 3};
  if (const auto* flag = std::get_if<bool>(&value)) return !*flag;
  if (const auto* count = std::get_if<int64_t>(&value)) return *count + 3;
  if (std::holds_alternative<double>(value)) return 0.1 + 0.2;  // Needs all 17 digits.
  if (std::holds_alternative<std::string>(value)) return std::string("a \"b\"\\ \n\t\x7f ünï");
  if (std::holds_alternative<std::array<double, 2>>(value)) return std::array{1.0 / 3, 5e-324};
  return std::vector<std::string>{"x", "with \"quotes\""};
}

bool is_second_of_pair(std::string_view name) {
  return name == "run.epochs" || name == "batch.per_rank" || name == "model.config" ||
         name == "data.validation_fraction" || name == "lr_schedule.warmup_samples" ||
         name == "lr_schedule.warmup_fraction" || name == "noise.trained_betas";
}

TEST_F(ConfigFileTest, WrittenConfigReadsBackToTheSameValues) {
  Config config;
  for (const ConfigKey& key : config_schema()) {
    if (!is_second_of_pair(key.name)) key.set(config, another_value(key));
  }
  config.scores.metrics = {"clip_score", "latent_frechet"};  // No text is one.
  const Config read = load(write_config(config)).config;
  for (const ConfigKey& key : config_schema()) {
    EXPECT_EQ(key.get(read), key.get(config)) << key.name;
  }
  EXPECT_EQ(write_config(read), write_config(config));
}

TEST_F(ConfigFileTest, SecondKeysOfPairsReadBackToo) {
  Config config;
  for (const ConfigKey& key : config_schema()) {
    if (is_second_of_pair(key.name) && key.presence == ConfigKey::Presence::kUnlessDefault) {
      key.set(config, another_value(key));
    }
  }
  config.data.train = {"t.h5"};
  config.data.validation_fraction = 0.1 + 0.2;
  const Config read = load(write_config(config)).config;
  EXPECT_EQ(read.run.epochs, 0.1 + 0.2);
  EXPECT_EQ(read.run.steps, 0);
  EXPECT_EQ(read.batch.per_rank, 3);
}

TEST_F(ConfigFileTest, WrittenConfigHoldsEveryKeyButTheOtherOfAPair) {
  const std::string text = write_config(load(kMinimal).config);
  for (const ConfigKey& key : config_schema()) {
    const bool absent = key.presence == ConfigKey::Presence::kUnlessDefault;
    if (absent) continue;
    EXPECT_THAT(text, HasSubstr("\n" + std::string(key.leaf()) + " = ")) << key.name;
  }
  EXPECT_THAT(text, HasSubstr("\nsteps = 10\n"));
  EXPECT_EQ(text.find("epochs"), std::string::npos);
}

TEST_F(ConfigFileTest, ExtremeFloatsAreWrittenAsFloats) {
  for (const double value : {1.0, 1e-7, 1e300, 123456789.0, 0.1, 1e16}) {
    const std::string text = toml_text(value);
    EXPECT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
    EXPECT_NE(text.find_first_of(".e"), std::string::npos) << text;
  }
}

TEST_F(ConfigFileTest, ResumeAllowsWhatDoesNotTouchTheTrajectory) {
  const Config then = load(kMinimal).config;
  const Config now =
      load(kMinimal, {"run.name=x", "run.dir=y", "parallel.backend=mpi", "checkpoint.keep=1",
                      "checkpoint.every_steps=7", "sample.count=1", "eval.every_steps=3",
                      "data.validation=v.h5"})
          .config;
  const ConfigDifference difference = compare_for_resume(now, then);
  EXPECT_THAT(difference.keys, IsEmpty());
  EXPECT_EQ(difference.growth, "");
}

TEST_F(ConfigFileTest, ResumeNamesWhatDiffers) {
  const Config then = load(kMinimal).config;
  const Config now = load(kMinimal, {"optim.lr=1e-3", "batch.micro=4", "run.steps=20"}).config;
  const ConfigDifference difference = compare_for_resume(now, then);
  EXPECT_THAT(difference.keys,
              ElementsAre("batch.micro: 4 here, 0 in the run's config.toml",
                          "optim.lr: 0.001 here, 0.0001 in the run's config.toml"));
  EXPECT_EQ(difference.growth, "run.steps grows from 10 to 20");
}

TEST_F(ConfigFileTest, ResumeRefusesFewerStepsAndAnotherUnit) {
  const Config then = load(kMinimal).config;
  EXPECT_THAT(compare_for_resume(load(kMinimal, {"run.steps=9"}).config, then).keys,
              ElementsAre("run.steps: 9 here, 10 in the run's config.toml"));
  Config epochs = then;
  epochs.run.steps = 0;
  epochs.run.epochs = 2;
  EXPECT_THAT(compare_for_resume(epochs, then).keys,
              ElementsAre("run.steps: not set here, 10 in the run's config.toml",
                          "run.epochs: 2.0 here, not set in the run's config.toml"));
  Config longer = epochs;
  longer.run.epochs = 2.5;
  EXPECT_EQ(compare_for_resume(longer, epochs).growth, "run.epochs grows from 2.0 to 2.5");
}

TEST_F(ConfigFileTest, EvaluationTouchesTheTrajectoryWithEarlyStopping) {
  const std::vector<std::string> stopping = {"early_stopping.patience=2", "data.validation=v.h5"};
  auto other = stopping;
  other.push_back("eval.every_steps=3");
  EXPECT_THAT(
      compare_for_resume(load(kMinimal, other).config, load(kMinimal, stopping).config).keys,
      ElementsAre("eval.every_steps: 3 here, 500 in the run's config.toml"));
}

TEST_F(ConfigFileTest, DocumentationListsEveryKeyWithItsDefault) {
  // Test programs lie in a build folder of the repository.
  auto root = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  while (!std::filesystem::exists(root / "docs" / "config.md") && root.has_relative_path()) {
    root = root.parent_path();
  }
  std::ifstream file(root / "docs" / "config.md");
  ASSERT_TRUE(file) << "docs/config.md was not found above the test program";
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string text = stream.str();
  std::vector<std::string> missing;
  for (const ConfigKey& key : config_schema()) {
    const ConfigValue value = key.get(Config{});
    const bool absent = key.presence == ConfigKey::Presence::kUnlessDefault;
    const std::string row =
        "| `" + std::string(key.name) + "` | " + (absent ? "" : "`" + toml_text(value) + "`");
    if (text.find(row) == std::string::npos) missing.push_back(row);
  }
  EXPECT_THAT(missing, IsEmpty());
}
}  // namespace
}  // namespace trireme
