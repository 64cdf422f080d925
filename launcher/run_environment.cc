#include "launcher/run_environment.h"

#include <algorithm>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "launcher/report_table.h"

namespace trireme {
namespace {
using Json = nlohmann::ordered_json;
using Rows = std::vector<std::pair<std::string, std::string>>;
constexpr size_t kHostsMax = 16;  // Rows; the others are among the details.
constexpr size_t kDetailsMax = 400;

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// A member of an object as text; empty where there is none.
std::string member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? "" : text_of(*found);
}

int64_t number(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

const Json& list(const Json& object, const char* name) {
  static const Json kNone = Json::array();
  const auto found = object.find(name);
  return found != object.end() && found->is_array() ? *found : kNone;
}

void append(std::string& text, const std::string& more) {
  if (!more.empty()) text += (text.empty() ? "" : ", ") + more;
}

std::string command_of(const Json& start) {
  std::string text;
  for (const auto& word : list(start, "command")) text += (text.empty() ? "" : " ") + text_of(word);
  return text;
}

void add_build(const Json& start, Rows& rows) {
  const auto found = start.find("build");
  if (found == start.end() || !found->is_object()) return;
  const Json& build = *found;
  std::string program = "trireme " + member(build, "version");
  append(program, "commit " + member(build, "commit"));
  append(program, member(build, "build"));
  append(program, member(build, "compiler"));
  rows.emplace_back("program", program);
  std::string libraries;
  for (const auto& [key, name] : std::map<std::string, std::string>{{"libtorch", "LibTorch "},
                                                                    {"mpi", ""},
                                                                    {"hdf5", "HDF5 "},
                                                                    {"cuda", "CUDA "},
                                                                    {"nccl", "NCCL "}}) {
    const std::string version = member(build, key.c_str());
    if (version != "none" && !version.empty()) append(libraries, name + version);
  }
  rows.emplace_back("libraries", libraries);
}

std::string gpus_of(const Json& host) {
  std::map<std::string, int64_t> models;
  for (const auto& gpu : list(host, "gpus")) ++models[member(gpu, "model")];
  std::string text;
  for (const auto& [model, count] : models) append(text, std::to_string(count) + " x " + model);
  return text;
}

std::string host_text(const Json& host) {
  std::string text = member(host, "processor");
  append(text, format_plural(number(host, "cores"), "core"));
  append(text, format_bytes(static_cast<uint64_t>(number(host, "memory_bytes"))));
  append(text, gpus_of(host));
  append(text, member(host, "kernel"));
  std::string ranks;
  for (const auto& rank : list(host, "ranks")) append(ranks, member(rank, "rank"));
  const bool is_one = list(host, "ranks").size() == 1;
  return text + (is_one ? "; rank " : "; ranks ") + ranks;
}

Rows rows_of(const Json& start) {
  Rows rows = {{"last start", member(start, "time")},
               {"command", command_of(start)},
               {"in", member(start, "working_directory")}};
  const std::string resumed = member(start, "resumed_from");
  if (!resumed.empty()) rows.emplace_back("resumed from", resumed);
  add_build(start, rows);
  const Json& hosts = list(start, "hosts");
  rows.emplace_back("ranks", format_count(number(start, "num_ranks")) + " on " +
                                 format_plural(static_cast<int64_t>(hosts.size()), "host"));
  for (size_t i = 0; i < std::min(hosts.size(), kHostsMax); ++i)
    rows.emplace_back(member(hosts[i], "host"), host_text(hosts[i]));
  return rows;
}

// Every value with its path: "build.mpi", "hosts.0.cores".
void flatten(const Json& value, const std::string& path, size_t depth, Rows& rows) {
  if (rows.size() >= kDetailsMax) return;
  const bool is_list = value.is_array() && !value.empty() && value.front().is_structured();
  if ((value.is_object() || is_list) && depth < 6) {
    for (const auto& [name, item] : value.items())
      flatten(item, path.empty() ? name : path + "." + name, depth + 1, rows);
    return;
  }
  rows.emplace_back(path, text_of(value));
}
}  // namespace

RunEnvironment read_run_environment(const RunRecord& record) {
  RunEnvironment environment;
  for (const auto& event : record.events) {
    if (event.what == "start" || event.what == "resume") environment.rows = event.details;
  }
  std::ifstream file(record.folder / "provenance.jsonl");
  Json last;
  for (std::string line; std::getline(file, line);) {
    auto start = Json::parse(line, nullptr, false);
    if (start.is_object() && member(start, "kind") == "start") last = std::move(start);
  }
  if (!last.is_object()) return environment;
  environment.rows = rows_of(last);
  last.erase("kind");
  flatten(last, "", 0, environment.details);
  return environment;
}
}  // namespace trireme
