#pragma once
#include <optional>

namespace trireme {

// The terminal on which a person reads this process's stderr: stderr itself, or, where mpirun
// started the process and passes its stderr on, mpirun's. Local.
class Terminal {
 public:
  // nullopt where stderr ends in a file, a pipe or a log, and for TERM=dumb, which knows no
  // rewriting.
  [[nodiscard]] static std::optional<Terminal> of_stderr();
  ~Terminal();
  Terminal(Terminal&& other) noexcept;
  Terminal& operator=(Terminal&& other) noexcept;
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Its width now (a person may change it); 80 where it does not say.
  [[nodiscard]] int columns() const;

 private:
  explicit Terminal(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;  // Only asked for its width.
};
}  // namespace trireme
