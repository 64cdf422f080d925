#pragma once
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace trireme {

// What the process returns to the shell (docs/exit_codes.md).
enum class ExitCode : int {
  kDone = 0,
  kOther = 1,
  kUsage = 2,         // Usage, configuration or run directory.
  kInput = 3,         // An input file is missing or unusable.
  kLost = 4,          // A rank or the network was lost.
  kDiverged = 5,      // Loss or gradients not finite, from finite data.
  kStopped = 75,      // Stopped by a signal after a checkpoint (EX_TEMPFAIL).
  kInterrupted = 130  // A second Ctrl-C.
};

// Base of every error that the program raises itself. The message is one paragraph: what is wrong,
// where (file, key, line, rank), what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(ExitCode::kUsage, message) {}
};

class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(ExitCode::kInput, message) {}
};

class LostError : public Error {
 public:
  explicit LostError(const std::string& message) : Error(ExitCode::kLost, message) {}
};

class DivergedError : public Error {
 public:
  explicit DivergedError(const std::string& message) : Error(ExitCode::kDiverged, message) {}
};

// A broken invariant of the program itself.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message) : Error(ExitCode::kOther, message) {}
};

// Throws InternalError naming the place unless `condition` holds. On in all builds.
void check(bool condition, std::string_view what,
           std::source_location where = std::source_location::current());

// "Did you mean" for error messages: the candidate with the smallest edit distance to `word`, or
// an empty string where none is near.
template <typename Range>
[[nodiscard]] std::string nearest_word(std::string_view word, const Range& candidates);
[[nodiscard]] int edit_distance(std::string_view a, std::string_view b);

template <typename Range>
std::string nearest_word(std::string_view word, const Range& candidates) {
  std::string best;
  int best_distance = static_cast<int>(word.size()) / 2 + 2;
  for (const auto& candidate : candidates) {
    const int distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}
}  // namespace trireme
