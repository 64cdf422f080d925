#include "trainer/time_report.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/formatted.h"

namespace trireme {
namespace {
constexpr double kStragglerExcess = 0.10;  // Of the median rank's own work.
constexpr int64_t kStepsMin = 10;
constexpr std::array<Phase, 4> kOwnWork = {Phase::kData, Phase::kForward, Phase::kBackward,
                                           Phase::kOptimizer};

double at(const TimeReport::Rank& rank, Phase phase) {
  return rank.seconds[static_cast<size_t>(phase)];
}

double own_work(const TimeReport::Rank& rank) {
  return std::accumulate(kOwnWork.begin(), kOwnWork.end(), 0.0,
                         [&](double sum, Phase phase) { return sum + at(rank, phase); });
}

// Of two middle ones the lower, so that one of two ranks can be the slow one.
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string percent(double share) {
  return formatted(share < 0.095 ? "%.1f %%" : "%.0f %%", 100.0 * share);
}

// A remark with the share of the time that it is about.
using Remark = std::pair<double, std::string>;

void note_straggler(const TimeReport& report, std::vector<Remark>& remarks) {
  if (report.ranks.size() < 2) return;
  std::vector<double> work;
  for (const auto& rank : report.ranks) work.push_back(own_work(rank));
  const auto slowest = std::ranges::max_element(work);
  const double typical = median(work);
  const double excess = *slowest - typical;
  if (typical <= 0.0 || excess < kStragglerExcess * typical) return;
  const auto index = static_cast<size_t>(slowest - work.begin());
  const TimeReport::Rank& rank = report.ranks[index];
  Phase worst = Phase::kBackward;
  double worst_excess = 0.0;
  for (const Phase phase : kOwnWork) {
    std::vector<double> seconds;
    for (const auto& other : report.ranks) seconds.push_back(at(other, phase));
    const double phase_excess = at(rank, phase) - median(seconds);
    if (phase_excess > worst_excess) {
      worst = phase;
      worst_excess = phase_excess;
    }
  }
  remarks.emplace_back(
      excess / report.wall_seconds,
      "rank " + std::to_string(index) + " on " + rank.host + " is " + percent(excess / typical) +
          " slower than the median rank, most of all in " +
          std::string(kPhaseNames[static_cast<size_t>(worst)]) +
          formatted(" (%.3g s more)", worst_excess) +
          ", and the others wait for it: look for other jobs, a lower clock or a slower " +
          (worst == Phase::kData ? "disk" : "device") + " on that host");
}

void note_phase(const std::vector<PhaseSummary>& phases, Phase phase, double limit,
                const std::string& text, std::vector<Remark>& remarks) {
  const double share = phases[static_cast<size_t>(phase)].share;
  if (share >= limit) remarks.emplace_back(share, percent(share) + text);
}
}  // namespace

std::vector<PhaseSummary> summarize(const TimeReport& report) {
  std::vector<PhaseSummary> phases;
  const auto count = static_cast<double>(report.ranks.size());
  for (size_t p = 0; p <= kNumPhases; ++p) {
    PhaseSummary phase{.name = p < kNumPhases ? std::string(kPhaseNames[p]) : "other"};
    for (size_t r = 0; r < report.ranks.size(); ++r) {
      const auto& seconds = report.ranks[r].seconds;
      const double value =
          p < kNumPhases ? seconds[p]
                         : std::max(0.0, report.wall_seconds -
                                             std::accumulate(seconds.begin(), seconds.end(), 0.0));
      phase.min = r == 0 ? value : std::min(phase.min, value);
      phase.max = r == 0 ? value : std::max(phase.max, value);
      phase.mean += value / count;
    }
    if (report.wall_seconds > 0) phase.share = phase.mean / report.wall_seconds;
    phases.push_back(std::move(phase));
  }
  return phases;
}

std::vector<std::string> advise(const TimeReport& report) {
  if (report.num_steps < kStepsMin || report.ranks.empty() || report.wall_seconds <= 0) return {};
  const auto phases = summarize(report);
  std::vector<Remark> remarks;
  note_straggler(report, remarks);
  note_phase(phases, Phase::kData, 0.05,
             " of the time went on waiting for data: put the files on a local disk, or give each "
             "rank one more core for its loader",
             remarks);
  // Where a straggler explains the wait, communication itself is not to blame.
  if (remarks.empty() || !remarks.front().second.starts_with("rank ")) {
    note_phase(phases, Phase::kCommunication, 0.10,
               " of the time went on communication that the backward pass did not hide: more "
               "samples a rank (batch.global, or batch.micro smaller than a rank's share) give it "
               "more to hide behind; fewer ranks may be as fast",
               remarks);
  }
  note_phase(phases, Phase::kEvaluation, 0.25,
             " of the time went on evaluation and samples: raise eval.every_steps, or lower "
             "sample.count, sample.steps or eval.timesteps",
             remarks);
  note_phase(phases, Phase::kCheckpoint, 0.10,
             " of the time went on checkpoints: raise checkpoint.every_steps, or write to a faster "
             "disk",
             remarks);
  std::ranges::stable_sort(remarks, std::greater<>(), &Remark::first);
  if (remarks.size() > 3) remarks.resize(3);
  std::vector<std::string> notes;
  for (auto& remark : remarks) notes.push_back(std::move(remark.second));
  return notes;
}

std::vector<std::string> time_table(const TimeReport& report) {
  std::vector<std::string> lines;
  const double rate = static_cast<double>(report.num_steps * report.global_batch) /
                      std::max(report.wall_seconds, 1e-9);
  lines.push_back(formatted("Where the time went: %lld steps in %s, %.1f images/s overall",
                            static_cast<long long>(report.num_steps),
                            duration_text(report.wall_seconds).c_str(), rate));
  const bool is_alone = report.ranks.size() == 1;
  lines.emplace_back(is_alone ? "  seconds                    total    share"
                              : "  seconds by rank              min      mean       max    share");
  for (const auto& phase : summarize(report)) {
    lines.push_back(is_alone
                        ? formatted("  %-18s  %11.1f  %5.1f %%", phase.name.c_str(), phase.mean,
                                    100.0 * phase.share)
                        : formatted("  %-18s  %10.1f%10.1f%10.1f  %5.1f %%", phase.name.c_str(),
                                    phase.min, phase.mean, phase.max, 100.0 * phase.share));
  }
  return lines;
}

std::string duration_text(double seconds) {
  const long long total = std::llround(std::clamp(seconds, 0.0, 1e12));
  if (total >= 86400) return formatted("%lldd%02lldh", total / 86400, total / 3600 % 24);
  if (total >= 3600) return formatted("%lldh%02lldm", total / 3600, total / 60 % 60);
  return formatted("%lldm%02llds", total / 60, total % 60);
}
}  // namespace trireme
