#include "launcher/study_runner.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <system_error>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/files.h"
#include "launcher/config_file.h"
#include "trainer/session.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
constexpr timespec kBetweenLooks = {.tv_sec = 0, .tv_nsec = 500'000'000};
constexpr int kExecFailed = 127;

// In the child; output goes to `log_file`.
[[noreturn]] void execute(const std::vector<std::string>& words, int log_file, pid_t parent,
                          const sigset_t& mask) {
  setpgid(0, 0);  // The terminal's Ctrl-C reaches the study, which stops this in its own way.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(kExecFailed);
  dup2(log_file, STDOUT_FILENO);
  dup2(log_file, STDERR_FILENO);
  std::vector<char*> argv;
  for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  for (const int number : {SIGINT, SIGTERM, SIGUSR1}) signal(number, SIG_DFL);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  execv(argv[0], argv.data());
  _exit(kExecFailed);
}

enum class Ending { kExited, kStopped, kDiverged, kNoMetric };

// A started run. SIGCHLD is blocked while it lives, so that waiting for it needs no polling.
class Child {
 public:
  Child(const std::vector<std::string>& words, const fs::path& log_path) {
    const int log_file = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                              S_IRUSR | S_IWUSR | S_IRGRP);
    if (log_file < 0) {
      throw UsageError("cannot write " + log_path.string() + ": " + std::strerror(errno) + ".");
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &before_);
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ == 0) execute(words, log_file, parent, before_);
    const int error = errno;
    close(log_file);
    if (pid_ < 0) {
      sigprocmask(SIG_SETMASK, &before_, nullptr);
      throw UsageError(std::string("cannot start a run: ") + std::strerror(error) + ".");
    }
  }
  ~Child() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Waits for its end, or half a second, or a signal. Returns whether it has ended.
  bool wait_a_little() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    if (has_ended()) return true;
    (void)sigtimedwait(&set, nullptr, &kBetweenLooks);
    return has_ended();
  }
  void stop() const { kill(pid_, SIGTERM); }
  // REQUIRES: it has ended.
  [[nodiscard]] int exit_code() const {
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }

 private:
  bool has_ended() {
    if (!ended_) ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
    return ended_;
  }
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
  sigset_t before_ = {};
};

// What the run itself said last.
std::string last_error(const fs::path& log_path) {
  std::error_code error;
  const auto size = fs::file_size(log_path, error);
  if (error || size == 0) return {};
  std::FILE* file = std::fopen(log_path.c_str(), "r");
  if (file == nullptr) return {};
  std::string found;
  char line[4096];
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::string_view(line).starts_with("error: ")) found = line + std::strlen("error: ");
  }
  (void)std::fclose(file);
  while (!found.empty() && (found.back() == '\n' || found.back() == ' ')) found.pop_back();
  return found;
}

[[noreturn]] void throw_failure(const RunSpec& run, const fs::path& log_path, int code) {
  const std::string said = last_error(log_path);
  const std::string text = "run " + run.name + " ended with code " + std::to_string(code) +
                           (said.empty() ? "." : ": " + said) + " Its log is " + log_path.string() +
                           "; run the study again to go on from here.";
  const bool is_known = code > 0 && code <= static_cast<int>(ExitCode::kDiverged);
  throw Error(is_known ? static_cast<ExitCode>(code) : ExitCode::kOther, text);
}
// What an evaluation depends on counts as if it could stop the run.
Config watched(Config config, const std::string& metric) {
  config.early_stopping.metric = metric;
  config.early_stopping.patience = std::max<int64_t>(1, config.early_stopping.patience);
  return config;
}

// Keys that decide the weights or the metric and differ; empty where the run is that of `now`.
std::string settings_changed(const Config& now, const Config& then, const std::string& metric) {
  ConfigDifference difference = compare_for_resume(now, then);
  if (!difference.growth.empty()) difference.keys.push_back(difference.growth);
  if (difference.keys.empty()) {
    difference.keys = compare_for_resume(watched(now, metric), watched(then, metric)).keys;
  }
  std::string text;
  for (const auto& key : difference.keys) text += (text.empty() ? "" : "; ") + key;
  return text;
}

[[noreturn]] void throw_no_metric(const std::string& metric, const StudyRun& record) {
  std::string names;
  for (const auto& name : record.evaluated) names += (names.empty() ? "" : ", ") + name;
  throw UsageError("study.metric = \"" + metric + "\" is not among what run " + record.spec.name +
                   " evaluates, which is " +
                   (names.empty()
                        ? "nothing. Give CONFIG validation data (data.validation or "
                          "data.validation_fraction)."
                        : names + ". Choose one of these; the run goes on from its checkpoint."));
}
}  // namespace

StudyRunner::StudyRunner(const StudyOptions& options, std::string program)
    : options_(options), program_(std::move(program)) {}

fs::path StudyRunner::runs_dir() const { return fs::path(options_.directory()) / "runs"; }

fs::path StudyRunner::run_dir(const RunSpec& run) const { return runs_dir() / run.name; }

Config StudyRunner::config_of(const RunSpec& run) const {
  LoadedConfig loaded = load_config(options_.config_of(run.start), run.sets, run_dir(run).string());
  ResolvedObjective resolved = resolve_objective(loaded.config, loaded.keys_set);
  loaded.config.objective = resolved.objective;
  loaded.config.noise = std::move(resolved.noise);
  return std::move(loaded.config);
}

StudyRun StudyRunner::record(const RunSpec& run) const {
  const fs::path folder = run_dir(run);
  StudyRun record = read_study_run(folder, run, options_.metric);
  using State = StudyRun::State;
  if (record.state != State::kFinished && record.state != State::kDiverged) return record;
  std::error_code error;
  if (!fs::exists(folder / "config.toml", error)) {  // Nothing says what it was.
    record.state = State::kUnfinished;
    return record;
  }
  const Config then = load_config(folder / "config.toml").config;
  const std::string changed = settings_changed(config_of(run), then, options_.metric);
  if (!changed.empty()) {
    throw UsageError("the finished run " + folder.string() +
                     " was made with other settings than the study now asks for: " + changed +
                     ". Set these back, choose another study.dir, or remove that folder to run it "
                     "again.");
  }
  if (record.state == State::kFinished && record.evaluations.empty()) {
    throw_no_metric(options_.metric, record);
  }
  return record;
}

std::vector<StudyRun> StudyRunner::records(std::span<const RunSpec> runs) const {
  std::vector<StudyRun> records;
  for (const auto& run : runs) records.push_back(record(run));
  return records;
}

// The configuration comes last: until then the folder is none of a run.
void StudyRunner::prepare_branch(const RunSpec& run) const {
  const fs::path folder = run_dir(run);
  std::error_code error;
  if (fs::exists(folder / "config.toml", error)) return;
  const fs::path from = fs::canonical(run.start.checkpoint, error);  // May be the link `latest`.
  const fs::path checkpoints = folder / "checkpoints";
  fs::remove_all(checkpoints, error);
  fs::create_directories(checkpoints, error);
  fs::copy(from, checkpoints / from.filename(), fs::copy_options::recursive, error);
  if (error) {
    throw UsageError("the checkpoint " + run.start.checkpoint + " cannot be copied to " +
                     checkpoints.string() + ": " + error.message() + ".");
  }
  write_text_file_atomically(folder / "config.toml", write_config(config_of(run)));
}

std::vector<std::string> StudyRunner::command(const RunSpec& run) const {
  std::vector<std::string> words = {program_,
                                    "launch",
                                    options_.config_of(run.start),
                                    "-n",
                                    std::to_string(run.ranks),
                                    "--run-dir",
                                    run_dir(run).string()};
  for (const auto& set : run.sets) words.insert(words.end(), {"--set", set});
  return words;
}

bool StudyRunner::finish(const RunSpec& run, const StopSignal& stop) const {
  const fs::path folder = run_dir(run);
  using State = StudyRun::State;
  const State before = record(run).state;
  if (before == State::kFinished || before == State::kDiverged) return true;
  const Config config = config_of(run);
  const bool is_score =  // Not due at every evaluation.
      std::ranges::count(config.scores.metrics, options_.metric) > 0;
  std::error_code error;
  fs::create_directories(fs::path(options_.directory()) / "logs", error);
  if (error) {
    throw UsageError("the study's folder " + options_.directory() +
                     " cannot be written: " + error.message() + ". Choose another with study.dir.");
  }
  if (!run.start.checkpoint.empty()) prepare_branch(run);
  fs::remove(folder / "study.json", error);
  const fs::path log_path = fs::path(options_.directory()) / "logs" / (run.name + ".log");
  Child child(command(run), log_path);
  Ending ending = Ending::kExited;
  while (!child.wait_a_little()) {
    if (ending != Ending::kExited) continue;  // It has been told; it is writing its checkpoint.
    if (stop.requested()) {
      ending = Ending::kStopped;
      child.stop();
      continue;
    }
    const StudyRun now = read_study_run(folder, run, options_.metric);
    if (looks_diverged(now)) {
      ending = Ending::kDiverged;
      child.stop();
    } else if (!is_score && now.evaluations.empty() && !now.evaluated.empty()) {
      ending = Ending::kNoMetric;
      child.stop();
    }
  }
  const int code = child.exit_code();
  if (ending == Ending::kStopped && code != 0) return false;
  const StudyRun now = read_study_run(folder, run, options_.metric);
  const bool has_diverged = ending == Ending::kDiverged ||
                            code == static_cast<int>(ExitCode::kDiverged) ||
                            (code == 0 && looks_diverged(now));
  if (has_diverged) {
    write_state(folder, State::kDiverged);
  } else if (ending == Ending::kNoMetric || (code == 0 && now.evaluations.empty())) {
    throw_no_metric(options_.metric, now);
  } else if (code == 0) {
    write_state(folder, State::kFinished);
  } else if (code == static_cast<int>(ExitCode::kStopped)) {
    return false;  // Somebody stopped the run itself.
  } else {
    throw_failure(run, log_path, code);
  }
  fs::remove_all(folder / "checkpoints", error);  // A study keeps curves, not weights.
  return ending != Ending::kStopped;
}
}  // namespace trireme
