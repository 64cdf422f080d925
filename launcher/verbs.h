#pragma once
#include <functional>

// CLI11 stays out of headers of the library.
namespace CLI {
class App;
}

namespace trireme {

// Each adds its subcommand to `app`: one screen of help with an example. Where that subcommand is
// the one given, parsing sets `action` to what does the work and returns the exit code; main() runs
// it. `action` outlives the parsing.
void add_train_verb(CLI::App& app, std::function<int()>& action);
void add_launch_verb(CLI::App& app, std::function<int()>& action);
void add_pack_verb(CLI::App& app, std::function<int()>& action);
void add_inspect_verb(CLI::App& app, std::function<int()>& action);
void add_check_verb(CLI::App& app, std::function<int()>& action);
void add_eval_verb(CLI::App& app, std::function<int()>& action);
void add_sample_verb(CLI::App& app, std::function<int()>& action);
void add_export_verb(CLI::App& app, std::function<int()>& action);
void add_study_verb(CLI::App& app, std::function<int()>& action);
void add_plan_verb(CLI::App& app, std::function<int()>& action);
void add_report_verb(CLI::App& app, std::function<int()>& action);
void add_audit_verb(CLI::App& app, std::function<int()>& action);
void add_bench_verb(CLI::App& app, std::function<int()>& action);
void add_doctor_verb(CLI::App& app, std::function<int()>& action);
void add_completion_verb(CLI::App& app, std::function<int()>& action);
}  // namespace trireme
