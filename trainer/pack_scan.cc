#include "trainer/pack_scan.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "trainer/group_work.h"
#include "trainer/pack_plan.h"
#include "trainer/progress.h"

namespace trireme {
namespace {
constexpr int64_t kGroup = 16;  // Pictures that a thread takes at a time.

// Texts travel as one string, each ended by a zero byte.
std::string join(const std::vector<std::string>& texts) {
  std::string joined;
  for (const auto& text : texts) joined.append(text).push_back('\0');
  return joined;
}

std::vector<std::string> split(std::string_view joined) {
  std::vector<std::string> texts;
  while (!joined.empty()) {
    const size_t end = joined.find('\0');
    texts.emplace_back(joined.substr(0, end));
    joined.remove_prefix(end + 1);
  }
  return texts;
}
}  // namespace

void broadcast_texts(MpiEnvironment& mpi, std::vector<std::string>& texts) {
  std::string joined = join(texts);
  mpi.broadcast_string(joined);
  texts = split(joined);
}

std::vector<std::string> find_unreadable(MpiEnvironment& mpi, int64_t num_workers,
                                         const std::filesystem::path& folder,
                                         const std::vector<std::string>& ids, int64_t resolution) {
  const auto count = static_cast<int64_t>(ids.size());
  std::mutex mutex;
  std::vector<std::string> mine;  // Index and reason, in turn.
  const auto decode = [&](int64_t i) {
    try {
      (void)read_picture(folder / ids[static_cast<size_t>(i)], resolution);
    } catch (const InputError& error) {
      const std::lock_guard lock(mutex);
      mine.push_back(std::to_string(i));
      mine.emplace_back(error.what());
    }
  };
  const auto voice = mpi.rank() == 0 ? Progress::Voice::kLogs : Progress::Voice::kSilent;
  Progress progress("pictures checked", count, voice);
  run_groups(
      mpi, num_workers, (count + kGroup - 1) / kGroup,
      [&](int64_t group) {
        for (int64_t i = group * kGroup; i < std::min(count, (group + 1) * kGroup); ++i) decode(i);
      },
      [&](int64_t groups) { progress.report(groups * kGroup); });
  std::vector<std::string> problems(ids.size());
  for (const auto& gathered : mpi.gather_strings(join(mine))) {
    const auto fields = split(gathered);
    for (size_t i = 0; i + 1 < fields.size(); i += 2) {
      problems.at(std::stoull(fields[i])) = fields[i + 1];
    }
  }
  return problems;
}

void report_unreadable(const std::vector<std::string>& problems, OnUnreadable on_unreadable) {
  const auto is_problem = [](const std::string& problem) { return !problem.empty(); };
  const auto num_bad = static_cast<size_t>(std::ranges::count_if(problems, is_problem));
  if (num_bad == 0) return;
  const std::string count = std::to_string(num_bad) + " of " + std::to_string(problems.size()) +
                            " pictures cannot be used";
  if (on_unreadable == OnUnreadable::kFail) {
    throw InputError(count + "; the first: " + *std::ranges::find_if(problems, is_problem) +
                     " Mend or remove them, or give --on-error skip.");
  }
  for (const auto& problem : problems) {
    if (is_problem(problem)) log::warn("skipped: " + problem);
  }
  if (num_bad == problems.size()) throw InputError("none of the pictures is left: " + count + ".");
  log::warn(count + " and are left out");
}
}  // namespace trireme
