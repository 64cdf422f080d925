#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "report/run_page.h"

namespace trireme {

// Reads what a report shows of a run: its metrics, its configuration against the defaults, the
// attributes of its data files, and what its folder records of the environment. What cannot be read
// any more is named in its place. Throws InputError where the folder holds no run.
[[nodiscard]] ReportedRun load_reported_run(const std::filesystem::path& folder);

// Writes RUN/report.html. For the end of a run: a failure is a warning. Local; rank 0.
void write_run_report(const std::filesystem::path& run_dir) noexcept;
}  // namespace trireme
