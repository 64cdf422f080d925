#pragma once
#include <string>

namespace CLI {
class App;
}

namespace trireme {

// A completion script for "bash", "zsh" or "fish", made from the verbs and options of `app` and, for
// --set, the keys of the configuration.
[[nodiscard]] std::string completion_script(const CLI::App& app, const std::string& shell);
}  // namespace trireme
