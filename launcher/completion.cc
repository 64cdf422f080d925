#include "launcher/completion.h"

#include <vector>

#include <CLI/CLI.hpp>

#include "launcher/config_schema.h"
#include "launcher/launch_plan.h"

namespace trireme {
namespace {
std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::string options_of(const CLI::App& verb) {
  std::string text;
  for (const CLI::Option* option : verb.get_options()) {
    for (const auto& name : option->get_lnames()) text += (text.empty() ? "--" : " --") + name;
  }
  return text;
}

std::string bash_script(const CLI::App& app) {
  std::string verbs;
  std::string cases;
  for (const CLI::App* verb : verbs_of(app)) {
    verbs += (verbs.empty() ? "" : " ") + verb->get_name();
    cases += "    " + verb->get_name() + ") options='" + options_of(*verb) + "' ;;\n";
  }
  std::string keys;
  for (const auto& key : config_schema()) keys += std::string(key.name) + "= ";
  return "_trireme() {\n  local verbs='" + verbs + "'\n  local keys='" + keys + "'\n" + R"sh(
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb= options= word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case " $verbs " in *" $word "*) verb=$word; break ;; esac
  done
  if [ -z "$verb" ]; then
    COMPREPLY=($(compgen -W "$verbs --help --version" -- "$cur"))
    return
  fi
  if [ "$prev" = --set ]; then
    compopt -o nospace 2>/dev/null
    COMPREPLY=($(compgen -W "$keys" -- "$cur"))
    return
  fi
  case $verb in
)sh" + cases +
         R"sh(  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _trireme trireme
)sh";
}

std::string fish_script(const CLI::App& app) {
  std::string text;
  for (const CLI::App* verb : verbs_of(app)) {
    text += "complete -c trireme -n __fish_use_subcommand -a " + verb->get_name() + " -d " +
            shell_quoted(verb->get_description()) + "\n";
    for (const CLI::Option* option : verb->get_options()) {
      for (const auto& name : option->get_lnames()) {
        text += "complete -c trireme -n '__fish_seen_subcommand_from " + verb->get_name() +
                "' -l " + name + " -d " + shell_quoted(option->get_description()) + "\n";
      }
    }
  }
  return text;
}
}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  if (shell == "fish") return fish_script(app);
  if (shell == "zsh")
    return "#compdef trireme\nautoload -U +X bashcompinit && bashcompinit\n" + bash_script(app);
  return bash_script(app);
}
}  // namespace trireme
