#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dist/mpi_environment.h"

namespace trireme {

enum class OnUnreadable { kFail, kSkip };

// Gives every rank the texts of rank 0; none may contain a zero byte. Collective.
void broadcast_texts(MpiEnvironment& mpi, std::vector<std::string>& texts);

// Decodes every picture on one of the ranks, on `num_workers` threads each; for each picture, why
// it cannot be used, or "". Collective, the same result on all ranks; rank 0 logs progress.
[[nodiscard]] std::vector<std::string> find_unreadable(MpiEnvironment& mpi, int64_t num_workers,
                                                       const std::filesystem::path& folder,
                                                       const std::vector<std::string>& ids,
                                                       int64_t resolution);

// Logs each problem, and their number, or throws InputError, as asked; throws also where nothing is
// left. Local.
void report_unreadable(const std::vector<std::string>& problems, OnUnreadable on_unreadable);
}  // namespace trireme
