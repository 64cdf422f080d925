#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/files.h"
#include "launcher/run_report.h"
#include "launcher/verbs.h"

namespace trireme {
namespace {
struct ReportArguments {
  std::vector<std::string> runs;
  std::string out;
};

int report(const ReportArguments& arguments) {
  std::vector<ReportedRun> runs;
  for (const auto& folder : arguments.runs) {
    // "runs/a/" is "runs/a".
    auto path = std::filesystem::path(folder).lexically_normal();
    runs.push_back(load_reported_run(path.has_filename() ? path : path.parent_path()));
  }
  const bool is_alone = runs.size() == 1;
  std::filesystem::path file = arguments.out;
  if (file.empty())
    file = is_alone ? runs.front().record.folder / "report.html" : "comparison.html";
  write_text_file_atomically(file, is_alone ? run_page(runs.front()) : comparison_page(runs));
  std::cout << file.string() << '\n';
  return static_cast<int>(ExitCode::kDone);
}
}  // namespace

void add_report_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<ReportArguments>();
  auto* verb = app.add_subcommand("report", "One HTML file on a run, or comparing several");
  verb->add_option("RUN", arguments->runs, "Run directories")->required();
  verb->add_option("--out", arguments->out,
                   "The file; default: report.html in the run, or comparison.html here")
      ->type_name("FILE");
  verb->footer(
      "The file needs no network and no scripts. Example:\n"
      "  trireme report runs/small-batch runs/large-batch --out comparison.html");
  verb->callback([arguments, &action] { action = [arguments] { return report(*arguments); }; });
}
}  // namespace trireme
