#pragma once
#include <filesystem>
#include <string_view>

// A façade over spdlog, which stays inside log.cc (torch's bundled fmt clashes with the system's).
namespace trireme::log {

// Sets up this process's log: rank 0 shows info on stderr, other ranks warnings; every line bears
// the rank. Until then lines go to stderr unadorned. Call once, before threads start.
void configure(int rank, int world_size);

// Also writes every line to `file` (appended). A rank other than 0 writes `stem.rankN.ext`, and
// only once it has something to say.
void add_file(const std::filesystem::path& file);

void info(std::string_view text);
void warn(std::string_view text);
void error(std::string_view text);
void flush();
}  // namespace trireme::log
