#pragma once
#include <filesystem>
#include <string_view>

// A façade over spdlog, which stays inside log.cc (torch's bundled fmt clashes with the system's).
namespace trireme::log {

enum class Console { kNormal, kQuiet };  // kQuiet: warnings and errors only, on rank 0 too.

// Sets up this process's log: rank 0 shows info on stderr, other ranks warnings; every line bears
// the rank, but for rank 0's info on the console. Until then lines go to stderr unadorned. Call
// once, before threads start.
void configure(int rank, int world_size, Console console = Console::kNormal);

// Also writes every line to `file` (appended). A rank other than 0 writes `stem.rankN.ext`, and
// only once it has something to say.
void add_file(const std::filesystem::path& file);

void info(std::string_view text);
void warn(std::string_view text);
void error(std::string_view text);
void to_file(std::string_view text);  // As info, but not on the console.
void flush();

// The width of the terminal on which rank 0's console is read; 0 where there is none (a file, a
// pipe, another rank, a quiet console).
[[nodiscard]] int terminal_columns();
// Shows `text` as the terminal's last line, in place of the one shown before; lines of the log
// appear above it. Empty: none. Cut to the terminal's width. Nothing without a terminal.
void set_status(std::string_view text);
}  // namespace trireme::log
