#include "launcher/rank_environment.h"

#include <algorithm>
#include <array>

namespace trireme {
namespace {
// A shell's own, and what ssh, MPI and the dynamic loader read.
constexpr std::array<std::string_view, 26> kNames = {"PATH",           "HOME",
                                                     "USER",           "LOGNAME",
                                                     "SHELL",          "PWD",
                                                     "TERM",           "COLUMNS",
                                                     "NO_COLOR",       "LANG",
                                                     "LANGUAGE",       "TZ",
                                                     "TMPDIR",         "TMP",
                                                     "TEMP",           "SSH_AUTH_SOCK",
                                                     "KRB5CCNAME",     "XDG_RUNTIME_DIR",
                                                     "DISPLAY",        "HOSTNAME",
                                                     "LD_PRELOAD",     "LD_LIBRARY_PATH",
                                                     "LIBRARY_PATH",   "OPAL_PREFIX",
                                                     "HYDRA_LAUNCHER", "COLORTERM"};
constexpr std::array<std::string_view, 39> kFamilies = {
    "LC_",    "TRIREME_", "OMP_",    "GOMP_",  "KMP_",   "MKL_",     "OPENBLAS_", "MALLOC_",
    "GLIBC_", "CUDA_",    "NVIDIA_", "NCCL_",  "TORCH_", "PYTORCH_", "ATEN_",     "CUBLAS_",
    "CUDNN_", "OMPI_",    "OPAL_",   "ORTE_",  "PRTE_",  "PMIX_",    "UCX_",      "FI_",
    "PSM2_",  "PSM3_",    "MPI_",    "HWLOC_", "HDF5_",  "SLURM_",   "SRUN_",     "SLURMD_",
    "PBS_",   "LSB_",     "MUNGE_",  "THP_",   "ASAN_",  "UBSAN_",   "TSAN_"};
// Of a host or of the process that starts the ranks; Open MPI carries its own settings itself.
constexpr std::array<std::string_view, 10> kOfTheHost = {
    "LC_", "OMPI_", "OPAL_", "ORTE_", "PRTE_", "PMIX_", "SLURM", "PBS_", "LSB_", "THP_"};

template <typename Range>
bool has_prefix(std::string_view name, const Range& prefixes) {
  return std::ranges::any_of(prefixes,
                             [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string_view name_of(std::string_view entry) { return entry.substr(0, entry.find('=')); }
}  // namespace

bool is_passed_to_ranks(std::string_view name) {
  return std::ranges::find(kNames, name) != kNames.end() || has_prefix(name, kFamilies);
}

bool is_passed_to_hosts(std::string_view name) {
  if (name == "LD_LIBRARY_PATH" || name == "LD_PRELOAD") return true;
  return has_prefix(name, kFamilies) && !has_prefix(name, kOfTheHost);
}

std::vector<std::string> filter_environment(const char* const* environment,
                                            const std::vector<std::string>& also) {
  std::vector<std::string> passed;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view name = name_of(*environment);
    if (is_passed_to_ranks(name) || std::ranges::find(also, name) != also.end())
      passed.emplace_back(*environment);
  }
  return passed;
}

std::vector<std::string> names_for_hosts(const std::vector<std::string>& passed,
                                         const std::vector<std::string>& also) {
  std::vector<std::string> names;
  for (const auto& entry : passed) {
    const std::string name(name_of(entry));
    if (is_passed_to_hosts(name) || std::ranges::find(also, name) != also.end())
      names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}
}  // namespace trireme
