// Lets the parity tests, which are written in Python, drive the C++ models: tensors come and go in
// safetensors files.
#include "tests/parity/model_probe.h"

#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"

void trireme::probe::require_count(std::span<const std::string> arguments, size_t count) {
  if (arguments.size() == count) return;
  throw UsageError("expected " + std::to_string(count) + " arguments, got " +
                   std::to_string(arguments.size()));
}

int main(int argc, char** argv) {
  namespace probe = trireme::probe;
  struct Command {
    std::string usage;
    std::function<int(std::span<const std::string>)> run;
  };
  const std::map<std::string, Command> commands = {
      {"unet", {"FOLDER IN.safetensors OUT.safetensors", probe::run_unet}},
      {"unet_names", {"FOLDER", probe::run_unet_names}},
      {"unet_bench", {"FOLDER BATCH SIZE TEXT_LENGTH STEPS", probe::run_unet_bench}},
      {"unet_random", {"CONFIG.json SEED OUT_FOLDER", probe::run_unet_random}},
      {"vae", {"encode|decode FOLDER IN.safetensors OUT.safetensors", probe::run_vae}},
      {"clip", {"FOLDER IN.safetensors OUT.safetensors", probe::run_clip}},
      {"clip_pair", {"FOLDER IN.safetensors OUT.safetensors TEXT...", probe::run_clip_pair}},
      {"inception", {"WEIGHTS RESIZE IN.safetensors OUT.safetensors", probe::run_inception}},
      {"tokenize", {"FOLDER IN.txt OUT.txt", probe::run_tokenize}},
  };
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto command = arguments.empty() ? commands.end() : commands.find(arguments.front());
  if (command == commands.end()) {
    for (const auto& [name, entry] : commands) {
      std::cerr << "model_probe " << name << ' ' << entry.usage << '\n';
    }
    return static_cast<int>(trireme::ExitCode::kUsage);
  }
  try {
    return command->second.run(std::span(arguments).subspan(1));
  } catch (const trireme::Error& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return static_cast<int>(trireme::ExitCode::kOther);
  }
}
