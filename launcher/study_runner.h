#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/stop_signal.h"
#include "study/study_grid.h"
#include "study/study_run.h"

namespace trireme {

// The runs of a study as child processes, each `trireme launch` in a folder of its own under
// DIR/runs.
class StudyRunner {
 public:
  // `program` is this executable.
  StudyRunner(const StudyOptions& options, std::string program);

  [[nodiscard]] std::filesystem::path runs_dir() const;
  [[nodiscard]] std::filesystem::path run_dir(const RunSpec& run) const;
  // The configuration that `launch` gives a run, as that stores it.
  [[nodiscard]] Config config_of(const RunSpec& run) const;
  // What is there of a run. Throws UsageError for one that is done, but with another configuration
  // than it would have now, or without the study's metric.
  [[nodiscard]] StudyRun record(const RunSpec& run) const;
  [[nodiscard]] std::vector<StudyRun> records(std::span<const RunSpec> runs) const;
  // The command of one run, as words.
  [[nodiscard]] std::vector<std::string> command(const RunSpec& run) const;

  // Runs `run` to its end unless it is finished or has diverged; a broken one goes on from its
  // checkpoint. One whose metric shows that it diverges is stopped. Returns false where the process
  // was asked to stop; the child has then written a checkpoint. Throws the child's error
  // (UsageError, InputError, LostError, …) naming its log, and UsageError, after stopping it, where
  // it does not evaluate the study's metric.
  [[nodiscard]] bool finish(const RunSpec& run, const StopSignal& stop) const;

 private:
  // A branch's folder is one that resumes from a copy of the checkpoint.
  void prepare_branch(const RunSpec& run) const;

  const StudyOptions& options_;
  std::string program_;
};
}  // namespace trireme
