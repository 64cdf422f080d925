#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// The environment that ranks are started with: an allow-list, so that what else a shell holds
// (tokens, keys) reaches neither ranks nor other hosts.

// Whether ranks get the variable: what programs and MPI need to run at all, and the settings of
// libraries and schedulers (OMP_…, NCCL_…, CUDA_…, OMPI_…, SLURM_…, TRIREME_…, and the like).
[[nodiscard]] bool is_passed_to_ranks(std::string_view name);
// Whether a rank on another host is to be told it too: the above without what belongs to a host or
// to the starter itself.
[[nodiscard]] bool is_passed_to_hosts(std::string_view name);

// Of "NAME=value" entries those that pass, with the `also` ones (names).
[[nodiscard]] std::vector<std::string> filter_environment(const char* const* environment,
                                                          const std::vector<std::string>& also);
// Names that `-x` of mpirun is to carry to other hosts, of those filter_environment() left.
[[nodiscard]] std::vector<std::string> names_for_hosts(const std::vector<std::string>& passed,
                                                       const std::vector<std::string>& also);
}  // namespace trireme
