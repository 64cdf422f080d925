#include "launcher/hosts.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string_view>

#include "core/error.h"
#include "core/files.h"

namespace trireme {
namespace {
bool is_of_host_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_';
}

bool is_host_name(std::string_view name) {
  return !name.empty() && name.front() != '-' && std::ranges::all_of(name, is_of_host_name);
}

// Greater than 0; else 0.
int positive(std::string_view text) {
  int value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
  return is_whole ? std::max(0, value) : 0;
}

// "a" or "a:4"; false where it is neither.
bool read_entry(std::string_view entry, HostSlots& host) {
  const size_t colon = entry.find(':');
  host = {.host = std::string(entry.substr(0, colon)), .num_ranks = 0};
  if (colon != std::string_view::npos) host.num_ranks = positive(entry.substr(colon + 1));
  return is_host_name(host.host) && (colon == std::string_view::npos || host.num_ranks > 0);
}

void add_line(std::vector<HostSlots>& hosts, const HostSlots& line) {
  const auto known = std::ranges::find(hosts, line.host, &HostSlots::host);
  if (known == hosts.end()) {
    hosts.push_back(line);
  } else {
    known->num_ranks = std::max(1, known->num_ranks) + std::max(1, line.num_ranks);
  }
}
}  // namespace

std::vector<HostSlots> parse_hosts(const std::string& text) {
  std::vector<HostSlots> hosts;
  size_t first = 0;
  while (first <= text.size()) {
    const size_t last = std::min(text.find(',', first), text.size());
    const std::string entry = text.substr(first, last - first);
    first = last + 1;
    HostSlots host;
    if (!read_entry(entry, host)) {
      throw UsageError("--hosts: '" + entry +
                       "' is not HOST:RANKS. Write them as in --hosts node1:4,node2:4.");
    }
    hosts.push_back(std::move(host));
  }
  return hosts;
}

std::vector<HostSlots> read_hostfile(const std::filesystem::path& file) {
  std::istringstream stream(read_text_file(file, "host file"));
  std::vector<HostSlots> hosts;
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    std::string word;
    if (!(words >> word)) continue;
    HostSlots host;
    bool is_good = read_entry(word, host);
    while (is_good && words >> word) {
      const bool is_slots = word.starts_with("slots=");
      if (is_slots) host.num_ranks = positive(std::string_view(word).substr(6));
      is_good = (is_slots && host.num_ranks > 0) || word.starts_with("max_slots=") ||
                word.starts_with("max-slots=");
    }
    if (!is_good) {
      throw UsageError("the host file \"" + file.string() + "\", line " + std::to_string(number) +
                       ": '" + line + "' is not a host. Write a line a host, as in node1 slots=4.");
    }
    add_line(hosts, host);
  }
  if (hosts.empty()) throw UsageError("the host file \"" + file.string() + "\" names no host.");
  return hosts;
}
}  // namespace trireme
