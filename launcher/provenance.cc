#include "launcher/provenance.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/utsname.h>
#include <unistd.h>

#include "dist/mpi_environment.h"
#include "launcher/build_facts.h"
#include "launcher/rank_environment.h"

namespace trireme {
namespace {
using Json = nlohmann::ordered_json;
constexpr const char* kFile = "provenance.jsonl";

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string launch_id() {
  const char* id = std::getenv(kLaunchIdVariable);
  return id == nullptr ? "" : id;
}

// "model name : …" of the first processor.
std::string processor_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return {};
}

Json host_facts(const Machine& machine) {
  utsname system{};
  uname(&system);
  const long pages = sysconf(_SC_PHYS_PAGES);
  Json gpus = Json::array();
  for (const auto& gpu : machine.gpus) {
    gpus.push_back({{"pci_address", gpu.pci_address},
                    {"uuid", gpu.uuid},
                    {"model", gpu.model},
                    {"numa_node", gpu.numa_node},
                    {"mig_instances", gpu.num_mig_instances}});
  }
  return {{"kernel", std::string(system.sysname) + " " + system.release},
          {"architecture", system.machine},
          {"processor", processor_model()},
          {"cores", machine.cores.size()},
          {"processing_units", machine.num_processing_units},
          {"quota_cores", machine.num_cores},
          {"numa_nodes", machine.num_numa_nodes()},
          {"memory_bytes", static_cast<int64_t>(pages) * sysconf(_SC_PAGESIZE)},
          {"gpus", std::move(gpus)}};
}

// Settings, not what MPI tells its processes to find each other.
bool is_recorded(const std::string& name) {
  if (name == "PATH" || name == "LD_LIBRARY_PATH" || name == "LD_PRELOAD") return true;
  for (const char* internal : {"PMIX_", "ORTE_", "PRTE_", "OPAL_", "OMPI_COMM_", "OMPI_UNIVERSE",
                               "OMPI_MCA_orte", "OMPI_MCA_ess", "OMPI_MCA_pmix", "MUNGE_"}) {
    if (name.starts_with(internal)) return false;
  }
  return is_passed_to_hosts(name) || name.starts_with("SLURM_") || name.starts_with("OMPI_MCA_") ||
         name.starts_with("LC_");
}

Json environment_facts() {
  Json facts = Json::object();
  for (const auto& entry : filter_environment(environ, {})) {
    const size_t at = entry.find('=');
    if (is_recorded(entry.substr(0, at))) facts[entry.substr(0, at)] = entry.substr(at + 1);
  }
  return facts;
}

// {"host": …, facts, "ranks": [{"rank": 0, "device": …, "cpus": […]}, …]} a host.
Json hosts_of(const std::vector<std::string>& texts) {
  Json hosts = Json::array();
  std::map<std::string, size_t> index;
  for (const auto& text : texts) {
    Json mine = Json::parse(text);
    const auto [entry, is_new] = index.try_emplace(mine["host"].get<std::string>(), hosts.size());
    if (is_new) {
      Json host = {{"host", mine["host"]}};
      host.update(mine["facts"]);
      host["ranks"] = Json::array();
      hosts.push_back(std::move(host));
    }
    hosts[entry->second]["ranks"].push_back(mine["rank"]);
  }
  return hosts;
}

// What a host's ranks compute on; empty where that is unknown, of several kinds, or part of a GPU.
std::string device_of(const Json& host) {
  std::string device;
  for (const auto& rank : host.at("ranks")) {
    const bool is_gpu = rank.at("device").get<std::string>() != "cpu";
    for (const auto& gpu : is_gpu ? host.at("gpus") : Json::array({Json{{"model", "cpu"}}})) {
      const auto model = gpu.at("model").get<std::string>();
      const bool is_other = !device.empty() && model != device;
      if (is_other || gpu.value("mig_instances", 0) > 0) return {};
      device = model;
    }
  }
  return device;
}

// Of all hosts of a start.
std::string device_of_hosts(const Json& record) {
  std::string device;
  try {
    for (const auto& host : record.at("hosts")) {
      const std::string there = device_of(host);
      if (there.empty() || (!device.empty() && there != device)) return {};
      device = there;
    }
  } catch (const Json::exception&) {  // Of another version.
    return {};
  }
  return device;
}

int cores_of_hosts(const Json& record) {
  static const Json::json_pointer kPlace("/hosts/0/quota_cores");
  if (!record.contains(kPlace)) return 0;
  const Json& cores = record.at(kPlace);
  return cores.is_number() ? cores.get<int>() : 0;
}

// A line at a time; lines that are cut off or of another kind are skipped.
template <typename Visit>
void for_each_record(const std::filesystem::path& run_dir, const Visit& visit) {
  std::ifstream file(run_dir / kFile);
  for (std::string line; std::getline(file, line);) {
    const Json record = Json::parse(line, nullptr, false);
    if (record.is_object()) visit(record);
  }
}
}  // namespace

std::vector<std::string> command_of_this_process() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::string start_record(MpiEnvironment& mpi, const StartFacts& facts) {
  const Json mine = {{"host", mpi.host_name()},
                     {"facts", host_facts(facts.machine)},
                     {"rank",
                      {{"rank", mpi.rank()},
                       {"process", getpid()},
                       {"device", facts.device},
                       {"cpus", facts.placement.cpus},
                       {"helper_cpus", facts.placement.helpers},
                       {"numa_node", facts.placement.numa_node}}}};
  const auto texts = mpi.gather_strings(mine.dump(-1, ' ', false, Json::error_handler_t::replace));
  if (mpi.rank() != 0) return {};
  Json build = Json::object();
  for (const auto& [name, value] : build_facts()) build[name] = value;
  const Json record = {{"kind", "start"},
                       {"time", utc_now()},
                       {"launch_id", launch_id()},
                       {"command", facts.command},
                       {"working_directory", std::filesystem::current_path().string()},
                       {"config_sha256", facts.config_sha256},
                       {"resumed_from", facts.resumed_from},
                       {"build", std::move(build)},
                       {"num_ranks", mpi.world_size()},
                       {"num_nodes", mpi.num_nodes()},
                       {"hosts", hosts_of(texts)},
                       {"environment", environment_facts()}};
  return record.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string end_record(ExitCode code) {
  const Json record = {{"kind", "end"},
                       {"time", utc_now()},
                       {"launch_id", launch_id()},
                       {"exit_code", static_cast<int>(code)}};
  return record.dump();
}

void append_provenance(const std::filesystem::path& run_dir, const std::string& record) {
  const std::filesystem::path file = run_dir / kFile;
  const int descriptor = open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  const std::string line = record + "\n";
  const bool is_written = descriptor >= 0 && write(descriptor, line.data(), line.size()) ==
                                                 static_cast<ssize_t>(line.size());
  const int error = errno;
  if (descriptor >= 0) close(descriptor);
  if (is_written) return;
  throw UsageError("cannot write \"" + file.string() + "\": " + std::strerror(error) +
                   ". Choose a run directory that can be written to.");
}

std::optional<ExitCode> recorded_end(const std::filesystem::path& run_dir, const std::string& id) {
  std::optional<ExitCode> code;
  for_each_record(run_dir, [&](const Json& record) {
    if (record.value("kind", "") == "end" && record.value("launch_id", "") == id)
      code = static_cast<ExitCode>(record.value("exit_code", 1));
  });
  return code;
}

std::optional<EarlierStart> read_start_beside(const std::filesystem::path& config_file) {
  std::optional<EarlierStart> start;
  if (config_file.filename() != "config.toml") return start;
  for_each_record(std::filesystem::absolute(config_file).parent_path(), [&](const Json& record) {
    if (record.value("kind", "") != "start") return;
    start = {.working_directory = record.value("working_directory", ""),
             .num_ranks = record.value("num_ranks", 0),
             .num_nodes = record.value("num_nodes", 1),
             .device = device_of_hosts(record),
             .cores_per_node = cores_of_hosts(record)};
  });
  return start;
}
}  // namespace trireme
