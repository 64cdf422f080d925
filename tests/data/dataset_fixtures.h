#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

namespace trireme::test {

// A folder of files that one run of a Python script wrote with h5py; gone on destruction.
class PythonFixtures {
 public:
  explicit PythonFixtures(const std::string& script) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "write.py") << script;
    const char* python = std::getenv("TRIREME_PYTHON");
    const std::string command = "cd '" + folder_.string() + "' && '" +
                                (python != nullptr && *python != '\0' ? python : "python3") +
                                "' write.py";
    works_ = std::system(command.c_str()) == 0;
  }
  ~PythonFixtures() { std::filesystem::remove_all(folder_); }
  PythonFixtures(const PythonFixtures&) = delete;
  PythonFixtures& operator=(const PythonFixtures&) = delete;

  [[nodiscard]] bool works() const noexcept { return works_; }
  [[nodiscard]] std::filesystem::path file(const std::string& name) const { return folder_ / name; }

 private:
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("trireme_fixtures_" + std::to_string(getpid()));
  bool works_ = false;
};
}  // namespace trireme::test
