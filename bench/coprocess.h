#pragma once
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace trireme::bench {

// A child that is asked by lines on its standard input and answers by lines on its standard output.
// Between questions it waits, so that several of them can be measured in turn. Its standard error
// is this process's.
class Coprocess {
 public:
  // `environment`: variables in addition. Throws UsageError where it cannot be started.
  Coprocess(const std::vector<std::string>& command,
            const std::vector<std::pair<std::string, std::string>>& environment);
  ~Coprocess();  // Closes its input and waits; ends it where it does not end by itself.
  Coprocess(const Coprocess&) = delete;
  Coprocess& operator=(const Coprocess&) = delete;

  void tell(const std::string& line);
  // The next line that begins with "BENCH ", without it; others are passed over. Throws LostError
  // naming the command where the child ends or `timeout_seconds` pass.
  [[nodiscard]] std::string hear(double timeout_seconds = 600.0);

 private:
  std::string name_;
  pid_t pid_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
  std::string buffer_;
};
}  // namespace trireme::bench
