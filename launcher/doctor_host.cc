#include <cstdlib>
#include <sstream>

#include <sys/resource.h>
#include <sys/statvfs.h>

#include "core/formatted.h"
#include "data/hdf5_facts.h"
#include "dist/mpi_facts.h"
#include "launcher/command_output.h"
#include "launcher/doctor.h"
#include "trainer/device_facts.h"

namespace trireme {
namespace {
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string gib(double bytes) { return formatted("%.1f GiB", bytes / (1 << 30)); }

std::vector<int> numbers_of(const std::string& version) {
  std::vector<int> numbers;
  std::istringstream stream(version);
  for (std::string part; std::getline(stream, part, '.');)
    numbers.push_back(std::atoi(part.c_str()));
  return numbers;
}

Finding compilers() {
  const CommandOutput compiler = output_of({"c++", "--version"});
  const CommandOutput cmake = output_of({"cmake", "--version"});
  if (compiler.exit_code != 0 || cmake.exit_code != 0) {
    return {"compilers", Health::kWarn, compiler.exit_code != 0 ? "no C++ compiler" : "no CMake",
            "needed for building only: apt-get install g++ cmake ninja-build"};
  }
  return {"compilers", Health::kOk, first_line(compiler.text) + "; " + first_line(cmake.text), ""};
}

Finding libtorch(const DeviceFacts& facts) {
  const bool is_known = !is_older(facts.libtorch, "2.11") && is_older(facts.libtorch, "2.15");
  return {
      "LibTorch", is_known ? Health::kOk : Health::kWarn,
      facts.libtorch + (facts.cuda_runtime.empty() ? " for CPUs" : ", CUDA " + facts.cuda_runtime),
      is_known ? "" : "tested with LibTorch 2.11 to 2.14: ./bootstrap build installs one"};
}

Finding hdf5() {
  const Hdf5Facts facts = hdf5_facts();
  const std::string found = facts.version +
                            (facts.is_thread_safe ? ", thread-safe" : ", one thread") +
                            (facts.is_parallel ? ", parallel" : ", serial");
  if (facts.version != facts.headers) {
    return {"HDF5", Health::kFail, found + ", but built with " + facts.headers,
            "build again, or let LD_LIBRARY_PATH lead to HDF5 " + facts.headers};
  }
  if (is_older(facts.version, "1.10.5"))
    return {"HDF5", Health::kWarn, found, "use HDF5 1.10.5 or later: chunk addresses need it"};
  return {"HDF5", Health::kOk, found, ""};  // Serial serves: samples are read by offset.
}

Findings gpus(const Machine& machine, const DeviceFacts& facts) {
  if (facts.cuda_runtime.empty()) {
    if (machine.gpus.empty()) return {{"GPUs", Health::kOk, "none; this build is for CPUs", ""}};
    return {{"GPUs", Health::kWarn,
             std::to_string(machine.gpus.size()) + " unused: this build is for CPUs",
             "./bootstrap cuda builds build-cuda/trireme"}};
  }
  Findings findings{judge_driver(facts.cuda_runtime, facts.cuda_driver),
                    {"NCCL", facts.nccl.empty() ? Health::kFail : Health::kOk,
                     facts.nccl.empty() ? "missing" : facts.nccl,
                     facts.nccl.empty() ? "./bootstrap cuda installs it" : ""}};
  const auto visible = visible_gpus();
  if (visible.empty()) {
    const bool has_nodes = !machine.gpus.empty();
    findings.push_back({"GPUs", has_nodes ? Health::kFail : Health::kWarn,
                        has_nodes ? "CUDA cannot use those that are here" : "none",
                        has_nodes
                            ? "see nvidia-smi; in a container start it with --gpus all (Docker) "
                              "or --nv (Apptainer)"
                            : "trains on CPUs; see CUDA_VISIBLE_DEVICES if there are some"});
    return findings;
  }
  std::string matrix;
  bool all_reach = true;
  for (size_t i = 0; i < visible.size(); ++i) {
    const auto& gpu = visible[i];
    findings.push_back(
        {"GPU " + std::to_string(i), gpu.is_supported ? Health::kOk : Health::kFail,
         gpu.name + ", " + gib(gpu.memory_bytes) + ", sm " + gpu.compute_capability,
         gpu.is_supported ? "" : "this LibTorch has no code for it: use another version"});
    matrix += i > 0 ? " | " : "";
    for (const bool reaches : gpu.reaches) {
      matrix += reaches ? '1' : '0';
      all_reach = all_reach && reaches;
    }
  }
  if (visible.size() > 1) {
    findings.push_back({"GPU peers", all_reach ? Health::kOk : Health::kWarn, matrix,
                        all_reach ? ""
                                  : "some GPUs reach each other through host memory only: see "
                                    "nvidia-smi topo -m; turn ACS off in the BIOS, or IOMMU in "
                                    "virtual machines"});
  }
  return findings;
}

Finding slurm() {
  const CommandOutput plugins = output_of({"srun", "--mpi=list"});
  if (plugins.exit_code == 127) return {"Slurm", Health::kOk, "not installed", ""};
  const std::string version = first_line(output_of({"srun", "--version"}).text);
  if (plugins.exit_code != 0)
    return {"Slurm", Health::kOk, version + ", but no cluster is configured here", ""};
  if (plugins.text.find("pmix") != std::string::npos)
    return {"Slurm", Health::kOk, version + ", with PMIx", ""};
  return {"Slurm", Health::kWarn, version + ", srun has no PMIx plug-in",
          "start ranks by mpirun in the allocation (launch does), or have Slurm built with PMIx"};
}

std::string amount(rlim_t limit) {
  return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit >> 20) + " MiB";
}

Findings limits(const Machine& machine) {
  rlimit files{};
  rlimit locked{};
  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_MEMLOCK, &locked);
  constexpr rlim_t kFewFiles = 1024;
  constexpr rlim_t kLittleLocked = rlim_t{64} << 20;
  struct statvfs shm{};
  const bool has_shm = statvfs("/dev/shm", &shm) == 0;
  const double shm_bytes =
      has_shm ? static_cast<double>(shm.f_bavail) * static_cast<double>(shm.f_frsize) : 0;
  const bool few = files.rlim_cur < kFewFiles;
  // Only devices that read memory by themselves mind.
  const bool has_devices = !machine.gpus.empty() || std::filesystem::exists("/dev/infiniband");
  const bool little = has_devices && locked.rlim_cur < kLittleLocked;
  const bool small = shm_bytes < static_cast<double>(kLittleLocked);
  return {{"open files", few ? Health::kWarn : Health::kOk, std::to_string(files.rlim_cur),
           few ? "ulimit -n 4096" : ""},
          {"locked memory", little ? Health::kWarn : Health::kOk, amount(locked.rlim_cur),
           little ? "InfiniBand and GPUs want it unlimited: ulimit -l unlimited, in Slurm "
                    "PropagateResourceLimitsExcept=MEMLOCK, in Docker --ulimit memlock=-1"
                  : ""},
          // Gradients lie in a memfd; MPI's own messages and NCCL's lie here.
          {"/dev/shm", small ? Health::kWarn : Health::kOk,
           has_shm ? gib(shm_bytes) + " free" : "missing",
           small ? "docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm" : ""}};
}

Finding binding(const Machine& machine) {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const int threads = text == nullptr ? 0 : std::atoi(text);
  const std::string found =
      std::to_string(machine.num_processing_units) + " processing units on " +
      std::to_string(machine.num_cores) + " cores, " + std::to_string(machine.num_numa_nodes()) +
      " NUMA nodes, OMP_NUM_THREADS " + (threads > 0 ? std::to_string(threads) : "not set");
  if (threads > machine.num_processing_units) {
    return {"binding", Health::kWarn, found,
            "more threads than this rank may use cores: mpirun --bind-to none, srun "
            "--cpus-per-task, or a smaller OMP_NUM_THREADS"};
  }
  return {"binding", Health::kOk, found, ""};
}

// The package's version where the distribution has mended an old one in place.
bool distribution_has_mended_pmix() {
  const CommandOutput package = output_of({"dpkg-query", "-W", "-f=${Version}", "libpmix2"});
  return package.exit_code == 0 && package.text.find("+deb") != std::string::npos;
}
}  // namespace

bool is_older(const std::string& version, const std::string& than) {
  return numbers_of(version) < numbers_of(than);
}

Findings judge_mpi(const std::string& mpi, const std::string& pmix) {
  constexpr std::string_view kOpenMpi = "Open MPI ";
  if (!mpi.starts_with(kOpenMpi)) {
    return {{"MPI", Health::kWarn, mpi,
             "tested with Open MPI 4 and 5 only: launch's options are those of its mpirun"}};
  }
  const std::string version = mpi.substr(kOpenMpi.size());
  if (is_older(version, "3.1.2")) {
    return {
        {"MPI", Health::kFail, mpi,
         "it can drop messages in shared memory (mended in 3.1.2): install Open MPI 4.1.6 or 5"}};
  }
  if (is_older(version, "4.0"))
    return {{"MPI", Health::kWarn, mpi, "no longer maintained: install Open MPI 4.1.6 or 5"}};
  const bool minds_new_pmix = is_older(version, "4.1.6");
  if (minds_new_pmix && !pmix.empty() && !is_older(pmix, "4.2.3")) {
    return {
        {"MPI", Health::kWarn, mpi + " with PMIx " + pmix,
         "Open MPI before 4.1.6 does not work with PMIx 4.2.3 and later: install Open MPI 4.1.6"}};
  }
  return {{"MPI", Health::kOk, mpi, ""}};
}

Finding judge_driver(const std::string& runtime, const std::string& driver) {
  const std::string found =
      "runtime " + runtime + ", driver " + (driver.empty() ? "not found" : "serves " + driver);
  if (driver.empty())
    return {"CUDA", Health::kWarn, found, "trains on CPUs here; GPUs need the NVIDIA driver"};
  // Within a major version an older driver serves newer runtimes.
  if (numbers_of(driver).front() < numbers_of(runtime).front()) {
    return {"CUDA", Health::kFail, found,
            "install a driver for CUDA " + runtime +
                " (nvidia-smi shows the present one), or build "
                "against a LibTorch for CUDA " +
                driver};
  }
  return {"CUDA", Health::kOk, found, ""};
}

Findings examine_host(const Machine& machine) {
  const DeviceFacts devices = device_library_facts();
  const std::string pmix = pmix_version();
  Findings findings{compilers(), libtorch(devices)};
  const auto add = [&findings](const Findings& more) {
    findings.insert(findings.end(), more.begin(), more.end());
  };
  add(gpus(machine, devices));
  add(judge_mpi(mpi_library_version(), pmix));
  const Finding slurm_finding = slurm();
  const bool has_slurm = slurm_finding.found != "not installed";
  // Slurm's PMIx works with root's rights for others; Open MPI's never does.
  if (has_slurm && !pmix.empty() && is_older(pmix, "4.2.6") && !distribution_has_mended_pmix()) {
    add({{"PMIx", Health::kWarn, pmix,
          "CVE-2023-41915: install PMIx 4.2.6 or 5.0.1 on Slurm's nodes"}});
  } else {
    add({{"PMIx", Health::kOk, pmix.empty() ? "within MPI" : pmix, ""}});
  }
  add({hdf5(), slurm_finding});
  add(limits(machine));
  add({binding(machine)});
  return findings;
}
}  // namespace trireme
