#include <iostream>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "launcher/completion.h"
#include "launcher/verbs.h"

namespace trireme {
void add_completion_verb(CLI::App& app, std::function<int()>& action) {
  auto shell = std::make_shared<std::string>();
  auto* verb = app.add_subcommand("completion", "Print a completion script for a shell");
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->footer("Example, in ~/.bashrc:\n  source <(trireme completion bash)");
  verb->callback([shell, &app, &action] {
    action = [shell, &app] {
      std::cout << completion_script(app, *shell);
      return 0;
    };
  });
}
}  // namespace trireme
