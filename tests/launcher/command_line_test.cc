#include "launcher/command_line.h"

#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "dist/mpi_environment.h"

namespace trireme {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() : app_("test", "trireme") {
    app_.require_subcommand(1);
    add_config_arguments(*app_.add_subcommand("train", "Train"), arguments_);
  }

  int parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "trireme");
    CaptureStderr();
    CaptureStdout();
    const int code = parse_command_line(app_, static_cast<int>(arguments.size()), arguments.data());
    output_ = GetCapturedStdout();
    errors_ = GetCapturedStderr();
    return code;
  }

  int run(const std::function<int()>& action) {
    CaptureStderr();
    const int code = run_reporting_errors(action);
    errors_ = GetCapturedStderr();
    return code;
  }

  CLI::App app_;
  ConfigArguments arguments_;
  std::string output_;
  std::string errors_;
};

TEST_F(CommandLineTest, ConfigArgumentsAreRead) {
  EXPECT_EQ(
      parse({"train", "c.toml", "--set", "a.b=1", "--set", "run.name=two words", "--run-dir", "d"}),
      -1);
  EXPECT_EQ(arguments_.file, "c.toml");
  EXPECT_THAT(arguments_.set, ElementsAre("a.b=1", "run.name=two words"));
  EXPECT_EQ(arguments_.run_dir, "d");
}

TEST_F(CommandLineTest, ListsSurviveSet) {
  EXPECT_EQ(
      parse({"train", "--set", "data.train=[\"a.h5\", \"b.h5\"]", "--set=optim.lr=1", "c.toml"}),
      -1);
  EXPECT_THAT(arguments_.set, ElementsAre("data.train=[\"a.h5\", \"b.h5\"]", "optim.lr=1"));
  EXPECT_EQ(arguments_.file, "c.toml");
}

TEST_F(CommandLineTest, MissingVerbIsAUsageError) {
  EXPECT_EQ(parse({}), 2);
  EXPECT_EQ(errors_, "error: a verb is missing. See trireme --help.\n");
}

TEST_F(CommandLineTest, UnknownVerbNamesTheNearest) {
  EXPECT_EQ(parse({"trian", "c.toml"}), 2);
  EXPECT_EQ(errors_,
            "error: there is no verb 'trian'; did you mean 'train'? See trireme --help.\n");
}

TEST_F(CommandLineTest, UnknownOptionAndMissingConfigAreUsageErrors) {
  EXPECT_EQ(parse({"train", "c.toml", "--fast"}), 2);
  EXPECT_THAT(errors_, AllOf(HasSubstr("--fast"), HasSubstr("See trireme train --help.")));
  EXPECT_EQ(parse({"train"}), 2);
  EXPECT_THAT(errors_, HasSubstr("CONFIG is required"));
}

TEST_F(CommandLineTest, HelpIsNoError) {
  EXPECT_EQ(parse({"train", "--help"}), 0);
  EXPECT_THAT(output_, HasSubstr("--set"));
  EXPECT_EQ(errors_, "");
}

TEST_F(CommandLineTest, HelpSaysWhatAPersonNeedsToType) {
  int ranks = 0;
  std::string format;
  CLI::App* verb = app_.get_subcommand("train");
  CLI::Option* slurm = verb->add_flag("--slurm");
  verb->add_option("-n", ranks, "Ranks")->check(CLI::Range(1, 8))->needs(slurm);
  verb->add_option("--format", format, "Of the file")->check(CLI::IsMember({"a", "b"}))->required();
  EXPECT_EQ(parse({"train", "--help"}), 0);
  EXPECT_THAT(output_, AllOf(HasSubstr("CONFIG    "), HasSubstr("-n N    "),
                             HasSubstr("--format {a,b} (required)")));
}

TEST_F(CommandLineTest, ErrorsReturnTheirCodeInOneParagraph) {
  EXPECT_EQ(run([]() -> int { throw InputError("FILE is\ntruncated.\n"); }), 3);
  EXPECT_EQ(errors_, "error: FILE is truncated.\n");
}

TEST_F(CommandLineTest, AnErrorOfAnotherRankIsSilent) {
  EXPECT_EQ(run([]() -> int { throw PeerFailedError(ExitCode::kInput); }), 3);
  EXPECT_EQ(errors_, "");
}

TEST_F(CommandLineTest, AnUnguardedFileSystemCallIsAnInputError) {
  const auto fail = []() -> int {
    throw std::filesystem::filesystem_error("status", "locked/run",
                                            std::make_error_code(std::errc::permission_denied));
  };
  EXPECT_EQ(run(fail), 3);
  EXPECT_THAT(errors_, testing::StartsWith("error: locked/run: Permission denied. See that"));
}

TEST_F(CommandLineTest, UnexpectedErrorsLoseTheirStackTrace) {
  const auto fail = []() -> int {
    throw std::runtime_error(
        "shapes differ\nException raised from f at a.cpp:1 (most recent call first):\nframe #0");
  };
  EXPECT_EQ(run(fail), 1);
  EXPECT_EQ(errors_, "error: unexpected: shapes differ\n");
}

TEST_F(CommandLineTest, OutOfMemorySaysSo) {
  EXPECT_EQ(run([]() -> int { throw std::bad_alloc(); }), 1);
  EXPECT_THAT(errors_, HasSubstr("out of memory"));
}

TEST_F(CommandLineTest, CodesPass) {
  EXPECT_EQ(run([] { return 75; }), 75);
}
}  // namespace
}  // namespace trireme
