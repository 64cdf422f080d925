#include "launcher/rank_output.h"

#include <charconv>
#include <utility>

#include "core/error.h"
#include "core/formatted.h"

namespace trireme {
namespace {
constexpr std::string_view kError = "error: ";

struct Label {
  size_t num_bytes = 0;
  int rank = -1;
};
enum class Match { kNo, kPerhaps, kYes };  // kPerhaps: more bytes are needed to tell.

// Moves over `expected` in `text` from `at`.
Match skip(std::string_view text, size_t& at, std::string_view expected) {
  for (const char c : expected) {
    if (at == text.size()) return Match::kPerhaps;
    if (text[at] != c) return Match::kNo;
    ++at;
  }
  return Match::kYes;
}

Match skip_number(std::string_view text, size_t& at, int& value) {
  const size_t first = at;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
  if (at == text.size()) return Match::kPerhaps;
  const auto result = std::from_chars(text.data() + first, text.data() + at, value);
  return at > first && result.ec == std::errc() ? Match::kYes : Match::kNo;
}

// "[1,3]<stderr>:", at the beginning of any piece of a line.
Match match_mpirun(std::string_view text, Label& label) {
  size_t at = 0;
  int job = 0;
  Match match = skip(text, at, "[");
  if (match == Match::kYes) match = skip_number(text, at, job);
  if (match == Match::kYes) match = skip(text, at, ",");
  if (match == Match::kYes) match = skip_number(text, at, label.rank);
  if (match == Match::kYes) match = skip(text, at, "]<std");
  if (match != Match::kYes) return match;
  if (at == text.size()) return Match::kPerhaps;
  match = skip(text, at, text[at] == 'e' ? "err>:" : "out>:");
  label.num_bytes = at;
  return match;
}

// "3: " or " 3: ", at the beginning of a line only.
Match match_srun(std::string_view text, Label& label) {
  size_t at = 0;
  while (at < text.size() && text[at] == ' ') ++at;
  Match match = skip_number(text, at, label.rank);
  if (match == Match::kYes) match = skip(text, at, ": ");
  label.num_bytes = at;
  return match;
}

// Whether a line is an error, which "[rank 3] " may precede.
Match match_error(std::string_view text) {
  size_t at = 0;
  int rank = 0;
  if (text.starts_with('[')) {
    Match match = skip(text, at, "[rank ");
    if (match == Match::kYes) match = skip_number(text, at, rank);
    if (match == Match::kYes) match = skip(text, at, "] ");
    if (match != Match::kYes) return match;
  }
  return skip(text, at, kError);
}

int rank_in(std::string_view text) {
  constexpr std::string_view kBefore = "[rank ";
  int rank = -1;
  if (text.starts_with(kBefore))
    std::from_chars(text.data() + kBefore.size(), text.data() + text.size(), rank);
  return rank;
}
}  // namespace

RankOutput::RankOutput(Options options) : options_(std::move(options)) {
  if (options_.folder.empty()) return;
  check(options_.labels != Labels::kNone, "rank output in files needs labelled lines");
  std::error_code error;
  std::filesystem::create_directories(options_.folder, error);
  if (error) {
    throw UsageError("--rank-output: cannot make the folder \"" + options_.folder.string() +
                     "\": " + error.message() + ". Choose one that can be written to.");
  }
}

void RankOutput::consume(OutputStream stream, std::string_view bytes) {
  if (options_.labels == Labels::kNone) {
    add(stream, -1, bytes);
  } else {
    consume_labelled(stream, bytes);
  }
}

void RankOutput::consume_labelled(OutputStream stream, std::string_view bytes) {
  Source& source = sources_[stream == OutputStream::kOut ? 0 : 1];
  source.pending += bytes;
  std::string_view rest = source.pending;
  while (!rest.empty()) {
    // mpirun marks each piece that it passes on, so marks stand within lines too.
    const bool is_mpirun = options_.labels == Labels::kMpirun;
    if (source.at_line_start || (is_mpirun && rest.front() == '[')) {
      Label label;
      const Match match = is_mpirun ? match_mpirun(rest, label) : match_srun(rest, label);
      if (match == Match::kPerhaps) break;
      if (match == Match::kYes) {
        source.rank = label.rank;
        rest.remove_prefix(label.num_bytes);
      } else if (source.at_line_start) {
        source.rank = -1;  // The starter's own words.
      }
      source.at_line_start = false;
      if (match == Match::kYes) continue;
    }
    size_t end = rest.find('\n');
    end = end == std::string_view::npos ? rest.size() : end + 1;
    if (is_mpirun) end = std::min(end, std::max<size_t>(1, rest.find('[', 1)));
    source.at_line_start = rest[end - 1] == '\n';
    add(stream, source.rank, rest.substr(0, end));
    rest.remove_prefix(end);
  }
  source.pending = std::string(rest);
}

void RankOutput::add(OutputStream stream, int rank, std::string_view bytes) {
  if (!options_.folder.empty() && rank >= 0) file_of(rank) << bytes << std::flush;
  Line& line = lines_[{stream, rank}];
  while (!bytes.empty()) {
    const size_t end = bytes.find_first_of("\r\n");
    const bool is_whole = end != std::string_view::npos;
    line.text += bytes.substr(0, is_whole ? end + 1 : end);
    advance(stream, rank, line);
    if (is_whole) end_line(stream, rank, line);
    bytes.remove_prefix(is_whole ? end + 1 : bytes.size());
  }
}

// Passes on what is certainly not an error.
void RankOutput::advance(OutputStream stream, int, Line& line) {
  if (line.is_error) return;
  const Match match = line.num_shown > 0 ? Match::kNo : match_error(line.text);
  if (match == Match::kYes) line.is_error = true;
  if (match != Match::kNo) return;
  options_.show(stream, std::string_view(line.text).substr(line.num_shown));
  line.num_shown = line.text.size();
}

void RankOutput::end_line(OutputStream stream, int rank, Line& line) {
  if (line.is_error) {
    while (!line.text.empty() && (line.text.back() == '\n' || line.text.back() == '\r'))
      line.text.pop_back();
    if (!first_failure_)
      first_failure_ = {.rank = rank >= 0 ? rank : rank_in(line.text), .text = line.text};
  } else if (line.num_shown < line.text.size()) {
    options_.show(stream, std::string_view(line.text).substr(line.num_shown));
  }
  line = {};
}

void RankOutput::finish() {
  for (const auto stream : {OutputStream::kOut, OutputStream::kError}) {
    Source& source = sources_[stream == OutputStream::kOut ? 0 : 1];
    const std::string rest = std::exchange(source.pending, {});
    if (!rest.empty()) add(stream, source.rank, rest);
  }
  for (auto& [key, line] : lines_) {
    if (!line.text.empty()) end_line(key.first, key.second, line);
  }
}

std::ofstream& RankOutput::file_of(int rank) {
  const auto [entry, is_new] = files_.try_emplace(rank);
  if (is_new) {
    entry->second.open(options_.folder / formatted("rank-%05d.log", rank), std::ios::app);
  }
  return entry->second;
}
}  // namespace trireme
