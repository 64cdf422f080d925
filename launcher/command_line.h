#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/config_file.h"

namespace CLI {
class App;
}

namespace trireme {
class MpiEnvironment;

// What every verb that reads a CONFIG takes.
struct ConfigArguments {
  std::string file;
  std::vector<std::string> set;  // "key.path=VALUE"
  std::string run_dir;           // Replaces run.dir; empty: keep.
};

// Adds CONFIG, --set (repeatable) and --run-dir to a verb. `arguments` outlives the parsing.
void add_config_arguments(CLI::App& verb, ConfigArguments& arguments);
// Throws UsageError.
[[nodiscard]] LoadedConfig load(const ConfigArguments& arguments);

// Parses the command line into `app`. Returns -1 where a verb is to run, else the exit code after
// printing help, version, or one paragraph on a usage error (from one rank where the environment
// shows that there are several).
[[nodiscard]] int parse_command_line(CLI::App& app, int argc, const char* const* argv);

// Runs `action`; an exception becomes one paragraph on stderr and the exit code. A PeerFailedError,
// printed by the rank that failed, prints nothing.
[[nodiscard]] int run_reporting_errors(const std::function<int()>& action) noexcept;

// run_as_rank() with that report: the error is told while the other ranks wait.
[[nodiscard]] int run_reporting_as_rank(const std::function<int(MpiEnvironment&)>& body);

// One paragraph without what libraries append for developers (stack traces, several lines).
[[nodiscard]] std::string one_paragraph(std::string_view text);
}  // namespace trireme
