#include "launcher/child_process.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {
using testing::HasSubstr;

ChildOutcome run_quietly(const LaunchPlan& plan, int kill_timeout_seconds = 0) {
  RankOutput output({.labels = RankOutput::Labels::kNone,
                     .folder = {},
                     .show = [](OutputStream, std::string_view) {}});
  return run_child(plan, output, std::chrono::seconds(kill_timeout_seconds));
}

LaunchPlan shell_plan(const std::string& script) {
  LaunchPlan plan;
  plan.command = {"bash", "-c", script};
  plan.environment = {"PATH=/usr/bin:/bin", "SHOWN=yes"};
  return plan;
}

TEST(ChildTest, ItsCodePasses) {
  for (const int code : {0, 2, 75}) {
    const ChildOutcome outcome = run_quietly(shell_plan("exit " + std::to_string(code)));
    EXPECT_EQ(static_cast<int>(interpret(outcome, "mpirun").code), code);
  }
}

TEST(ChildTest, AMissingProgramIsAUsageErrorNamingIt) {
  LaunchPlan plan;
  plan.command = {"no-such-mpirun"};
  try {
    static_cast<void>(run_quietly(plan));
    FAIL() << "started";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no-such-mpirun"));
  }
}

TEST(ChildTest, SigtermReachesItAsUsr1) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome =
      run_quietly(shell_plan("trap 'exit 75' USR1; trap 'exit 9' TERM INT; kill -TERM " + parent +
                             "; while :; do sleep 0.01; done"));
  EXPECT_TRUE(outcome.was_stopped);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kStopped);
}

TEST(ChildTest, ASecondInterruptStopsAtOnce) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome =
      run_quietly(shell_plan("trap 'kill -INT " + parent + "' USR1; trap 'exit 1' INT; kill -INT " +
                             parent + "; while :; do sleep 0.01; done"));
  EXPECT_TRUE(outcome.was_interrupted);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kInterrupted);
}

TEST(ChildTest, ASecondSigtermChangesNothing) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome = run_quietly(
      shell_plan("trap 'kill -TERM " + parent + "; kill -TERM " + parent +
                 "; exit 75' USR1; kill -TERM " + parent + "; while :; do sleep 0.01; done"));
  EXPECT_FALSE(outcome.was_interrupted);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kStopped);
}

TEST(ChildTest, AStarterThatDoesNotHeedASecondInterruptIsKilled) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome =
      run_quietly(shell_plan("trap 'kill -INT " + parent + "' USR1; trap : INT; kill -INT " +
                             parent + "; while :; do sleep 0.01; done"));
  EXPECT_EQ(outcome.signal, SIGKILL);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kInterrupted);
}

TEST(ChildTest, ASigtermAtTheStarterItselfStopsTheRanks) {
  const ChildOutcome outcome = run_quietly(shell_plan(
      "trap 'exit 75' USR1; trap 'exit 9' TERM; kill -TERM $$; while :; do sleep 0.01; done"));
  EXPECT_TRUE(outcome.was_stopped);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kStopped);
}

TEST(ChildTest, TheKillTimeoutEndsWhatDoesNotStop) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome = run_quietly(
      shell_plan("trap : USR1; kill -TERM " + parent + "; while :; do sleep 0.01; done"), 1);
  EXPECT_TRUE(outcome.was_killed);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kLost);
}

TEST(ChildTest, SignalsWaitWhileTheyAreHeld) {
  const SignalsHeld held;
  kill(getpid(), SIGTERM);
  const ChildOutcome outcome = run_quietly(
      shell_plan("trap 'exit 75' USR1; sleep 0.2 & wait; while :; do sleep 0.01; done"));
  EXPECT_TRUE(outcome.was_stopped);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kStopped);
}

TEST(ChildTest, GetsThePlansEnvironmentOnly) {
  setenv("HIDDEN", "secret", 1);
  LaunchPlan plan = shell_plan("[ -z \"$HIDDEN\" ] && [ \"$SHOWN\" = yes ] && [ \"$OMP\" = 2 ]");
  plan.settings = {{"OMP", "2"}};
  EXPECT_EQ(run_quietly(plan).exit_code, 0);
  unsetenv("HIDDEN");
}

TEST(ChildTest, ASignalThatEndsARankIsALostRank) {
  const LaunchResult result = interpret({.exit_code = 128 + SIGKILL, .signal = 0}, "mpirun");
  EXPECT_EQ(result.code, ExitCode::kLost);
  EXPECT_THAT(result.message, HasSubstr("SIGKILL"));
  EXPECT_EQ(
      interpret({.exit_code = 128 + SIGUSR1, .signal = 0, .was_stopped = true}, "mpirun").code,
      ExitCode::kStopped);
  EXPECT_EQ(interpret({.exit_code = 130, .signal = 0}, "mpirun").code, ExitCode::kInterrupted);
}
}  // namespace
}  // namespace trireme
