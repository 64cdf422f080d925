#include "launcher/command_line.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <new>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/filesystem_error.h"
#include "core/log.h"
#include "dist/mpi_environment.h"

namespace trireme {
namespace {
void print_error(const std::string& text) noexcept {
  try {
    log::flush();
  } catch (...) {
    // The error itself matters more.
  }
  std::fflush(stdout);
  const std::string line =
      "error: " + one_paragraph(text) + "\n";  // One write: ranks share stderr.
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

// Before MPI starts only the environment tells ranks apart.
bool is_first_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* value = std::getenv(name)) return std::string_view(value) == "0";
  }
  return true;
}

std::vector<std::string> verb_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(verb->get_name());
  }
  return names;
}

// Empty where the first argument can be a verb.
std::string unknown_verb(const CLI::App& app, int argc, const char* const* argv) {
  if (argc < 2 || argv[1][0] == '-') return {};
  const auto names = verb_names(app);
  if (std::ranges::find(names, argv[1]) != names.end()) return {};
  const std::string nearest = nearest_word(argv[1], names);
  return "there is no verb '" + std::string(argv[1]) + "'" +
         (nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
}

// --help as a person reads it: a letter for a number, the words that can be chosen, and nothing of
// limits and of what goes with what, which errors tell.
class HelpFormatter final : public CLI::Formatter {
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0) return {};
    std::string value = option->get_type_name();
    const auto starts_with = [&](std::string_view type) {
      return std::string_view(value).starts_with(type);
    };
    if (starts_with("INT") || starts_with("UINT")) {
      value = "N";
    } else if (starts_with("FLOAT")) {
      value = "X";
    } else if (starts_with("TEXT")) {
      const size_t choices = value.find(":{");
      const std::string name = option->get_positional() ? "" : "TEXT";
      value = choices == std::string::npos ? name : value.substr(choices + 1);
    }
    if (!option->get_default_str().empty()) value += "=" + option->get_default_str();
    const bool is_repeated = option->get_expected_max() == CLI::detail::expected_max_vector_size;
    if (is_repeated) value += value.empty() ? "..." : " ...";
    if (option->get_required() && !option->get_positional()) value += " (required)";
    return value.empty() ? value : " " + value;
  }
};

int usage_error(const CLI::App& app, const std::string& text) {
  std::string command = "trireme";
  for (const CLI::App* verb : app.get_subcommands()) command += " " + verb->get_name();
  const bool ended =
      !text.empty() && std::string_view(".?!").find(text.back()) != std::string_view::npos;
  if (is_first_rank()) {
    print_error(text + (ended ? "" : ".") + " See " + command + " --help.");
  }
  return static_cast<int>(ExitCode::kUsage);
}
}  // namespace

void add_config_arguments(CLI::App& verb, ConfigArguments& arguments) {
  verb.add_option("CONFIG", arguments.file, "Configuration (TOML, docs/config.md)")->required();
  verb.add_option("--set", arguments.set,
                  "Overrides a key of CONFIG; repeatable. VALUE is TOML or a bare string")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb.add_option("--run-dir", arguments.run_dir, "Run directory, instead of run.dir")
      ->type_name("DIR");
}

LoadedConfig load(const ConfigArguments& arguments) {
  return load_config(arguments.file, arguments.set, arguments.run_dir);
}

int parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  if (const std::string text = unknown_verb(app, argc, argv); !text.empty()) {
    return usage_error(app, text);
  }
  const auto formatter = std::make_shared<HelpFormatter>();
  formatter->column_width(28);
  const std::function<void(CLI::App&)> set_formatter = [&](CLI::App& verb) {
    verb.formatter(formatter);
    for (CLI::App* below : verb.get_subcommands([](CLI::App*) { return true; })) {
      set_formatter(*below);
    }
  };
  set_formatter(app);
  try {
    app.parse(argc, argv);
    return -1;
  } catch (const CLI::CallForHelp& help) {
    if (is_first_rank()) {
      app.exit(help);
      std::cout << '\n';  // A footer ends without.
    }
    return 0;
  } catch (const CLI::Success& success) {  // --version
    return is_first_rank() ? app.exit(success) : 0;
  } catch (const CLI::RequiredError& error) {
    const bool no_verb = app.get_subcommands().empty();
    return usage_error(app, no_verb ? "a verb is missing" : error.what());
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error.what());
  }
}

std::string one_paragraph(std::string_view text) {
  for (const std::string_view developers :
       {"Exception raised from", "\nframe #0", "C++ CapturedTraceback"}) {
    text = text.substr(0, text.find(developers));
  }
  std::string result;
  for (const char c : text) {
    const bool space = c == '\n' || c == '\r' || c == '\t' || c == ' ';
    if (!space) {
      result += c;
    } else if (!result.empty() && result.back() != ' ') {
      result += ' ';
    }
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

int run_reporting_errors(const std::function<int()>& action) noexcept {
  try {
    return action();
  } catch (const PeerFailedError& error) {
    return static_cast<int>(error.code());
  } catch (const Error& error) {
    print_error(error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    print_error(
        "out of memory. Use a smaller batch.micro (and more accumulation), fewer ranks on this "
        "node, or a machine "
        "with more memory.");
  } catch (const std::filesystem::filesystem_error& error) {
    print_error(message_of(error));
    return static_cast<int>(ExitCode::kInput);
  } catch (const std::exception& error) {
    print_error(std::string("unexpected: ") + error.what());
  } catch (...) {
    print_error("unexpected: an exception of unknown type.");
  }
  return static_cast<int>(ExitCode::kOther);
}

int run_reporting_as_rank(const std::function<int(MpiEnvironment&)>& body) {
  return run_as_rank(body, [](const std::exception_ptr& error) {
    return run_reporting_errors([&]() -> int { std::rethrow_exception(error); });
  });
}
}  // namespace trireme
