#include "launcher/study_check.h"

#include <set>
#include <string>
#include <utility>

#include "core/error.h"
#include "trainer/run_plan.h"
#include "trainer/session.h"

namespace trireme {
void check_study_runs(const StudyOptions& options, const StudyRunner& runner,
                      std::span<const StudyRun> records) {
  std::set<std::pair<std::string, std::string>> opened;
  for (const auto& record : records) {
    using State = StudyRun::State;
    if (record.state == State::kFinished || record.state == State::kDiverged) continue;
    const RunSpec& run = record.spec;
    try {
      const Config config = runner.config_of(run);
      // Steps are given, so the size of the data does not matter.
      (void)plan_run(config, static_cast<int>(run.ranks), /*num_training=*/1);
      if (opened.emplace(options.config_of(run.start), run.variant).second) {
        (void)open_session(config, "cpu");
      }
    } catch (const Error& error) {
      throw Error(error.code(), "run " + run.name + " of the study cannot be run: " + error.what());
    }
  }
}
}  // namespace trireme
