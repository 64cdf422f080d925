#include "launcher/launch_run.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>

#include <unistd.h>

#include "core/formatted.h"
#include "core/log.h"
#include "launcher/child_process.h"
#include "launcher/provenance.h"
#include "launcher/rank_output.h"

namespace trireme {
namespace {
void show(OutputStream stream, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(stream == OutputStream::kOut ? STDOUT_FILENO : STDERR_FILENO,
                                bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) return;  // Nobody reads; the run goes on.
    bytes.remove_prefix(count > 0 ? static_cast<size_t>(count) : 0);
  }
}

RankOutput::Options output_options(const LaunchPlan& plan, const LaunchRunOptions& options) {
  auto labels = RankOutput::Labels::kNone;
  if (!options.rank_output.empty()) {
    labels =
        plan.starter == Starter::kSrun ? RankOutput::Labels::kSrun : RankOutput::Labels::kMpirun;
  }
  return {.labels = labels, .folder = options.rank_output, .show = show};
}

std::string new_launch_id() {
  std::random_device device;
  return formatted("%08x%08x", device(), device());
}

struct Attempt {
  ChildOutcome outcome;
  LaunchResult result;
  std::string failure;  // The first error that a rank told.
};

Attempt run_once(LaunchPlan plan, const LaunchRunOptions& options) {
  const std::string id = new_launch_id();
  plan.settings.emplace_back(kLaunchIdVariable, id);
  RankOutput output(output_options(plan, options));
  Attempt attempt;
  attempt.outcome = run_child(plan, output, std::chrono::seconds(options.kill_timeout_seconds));
  attempt.result = interpret(attempt.outcome, plan.command.front());
  if (output.first_failure()) attempt.failure = output.first_failure()->text;
  // A starter that got the signal itself has a code of its own, whatever the ranks' was.
  const bool is_starters_code =
      attempt.result.code == ExitCode::kOther || attempt.result.code == ExitCode::kLost;
  if (is_starters_code && attempt.failure.empty() &&
      recorded_end(options.run_dir, id) == ExitCode::kStopped) {
    attempt.result = {.code = ExitCode::kStopped, .message = {}};
  }
  return attempt;
}

bool is_worth_a_restart(const Attempt& attempt) {
  if (attempt.outcome.was_stopped || attempt.outcome.was_interrupted) return false;
  return attempt.result.code == ExitCode::kStopped || attempt.result.code == ExitCode::kLost;
}

// What went wrong, once and last.
void tell(const Attempt& attempt) {
  const std::string& message = attempt.result.message;
  const bool is_error =
      attempt.result.code == ExitCode::kLost || attempt.result.code == ExitCode::kOther;
  if (!message.empty() && is_error && attempt.failure.empty()) {
    log::error(message);
  } else if (!message.empty()) {
    log::info(message);
  }
  log::flush();
  if (!attempt.failure.empty()) show(OutputStream::kError, attempt.failure + "\n");
}
}  // namespace

ExitCode run_plan(LaunchPlan plan, const LaunchRunOptions& options) {
  const SignalsHeld held;  // Between two starts too.
  for (int restart = 0;; ++restart) {
    const Attempt attempt = run_once(plan, options);
    if (restart >= options.num_restarts || !is_worth_a_restart(attempt)) {
      tell(attempt);
      return attempt.result.code;
    }
    // Not as errors: the run is not over.
    std::string why = attempt.result.code == ExitCode::kStopped
                          ? "The ranks stopped after a checkpoint."
                      : !attempt.failure.empty() ? attempt.failure
                                                 : attempt.result.message;
    if (const size_t at = why.find("error: "); at != std::string::npos) why.erase(at, 7);
    log::warn(why + " Restart " + std::to_string(restart + 1) + " of " +
              std::to_string(options.num_restarts) + ".");
    log::flush();
    // --fresh was for the first start.
    std::erase(plan.command, "--fresh");
  }
}
}  // namespace trireme
