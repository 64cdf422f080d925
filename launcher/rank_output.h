#pragma once
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

enum class OutputStream { kOut, kError };

// What the ranks print, on its way from the starter to the terminal. Passes it on as it comes, in
// parts of lines too (progress), except errors ("error: …" at the beginning of a line, behind the
// rank's name or not): the first is kept for the end and the others, which are its echoes, are left
// out. With a folder, each rank's lines also go to a file there, errors included.
class RankOutput {
 public:
  enum class Labels { kNone, kMpirun, kSrun };  // How the starter marks whose line it is.
  using Show = std::function<void(OutputStream, std::string_view)>;
  struct Options {
    Labels labels = Labels::kNone;
    std::filesystem::path folder;  // Of `rank-00003.log`; empty: none. Needs labels.
    Show show;
  };
  explicit RankOutput(Options options);

  void consume(OutputStream stream, std::string_view bytes);
  void finish();  // Nothing more comes: what stands in the buffers is the last line.

  struct Failure {
    int rank = -1;     // -1: not known.
    std::string text;  // With "error: " before it.
  };
  // The first error that a rank told.
  [[nodiscard]] const std::optional<Failure>& first_failure() const noexcept {
    return first_failure_;
  }

 private:
  // One source's line as far as it has come.
  struct Line {
    std::string text;
    size_t num_shown = 0;  // Of it, passed on already.
    bool is_error = false;
  };
  struct Source {
    std::string pending;  // Bytes that may be the beginning of a label.
    int rank = -1;
    bool at_line_start = true;
  };
  void consume_labelled(OutputStream stream, std::string_view bytes);
  void add(OutputStream stream, int rank, std::string_view bytes);
  void advance(OutputStream stream, int rank, Line& line);
  void end_line(OutputStream stream, int rank, Line& line);
  std::ofstream& file_of(int rank);

  Options options_;
  std::map<std::pair<OutputStream, int>, Line> lines_;
  std::array<Source, 2> sources_;
  std::map<int, std::ofstream> files_;
  std::optional<Failure> first_failure_;
};
}  // namespace trireme
