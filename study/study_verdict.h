#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "study/study_analysis.h"

namespace trireme {

// Parts of analyse_study().

// Fit of log best_lr against log batch over the first variant's batches whose best rate is inside
// the grid; nullopt for fewer than three. Seeds are resampled (the same ones in every setting,
// since they share their random numbers), the best rates found again, and the slope fitted: 1,000
// times.
[[nodiscard]] std::optional<LrLaw> find_lr_law(const StudyAnalysis& analysis);

// Over the pairs of settings that share three seeds or more. Nothing where there are none.
enum class Pairs { kAll, kSameBatch, kOtherBatch };
[[nodiscard]] std::optional<CommonNumbers> compare_common_numbers(std::span<const Setting> settings,
                                                                  Pairs which);

// Images a second of the finished runs that tell.
[[nodiscard]] std::vector<double> finished_rates(const Setting& setting);
// REQUIRES: `settings` by variant.
[[nodiscard]] std::vector<RankScaling> scaling_over_ranks(std::span<const Setting> settings);
[[nodiscard]] std::optional<double> rank_loss_difference(std::span<const StudyRun> records);

// Three sentences: the critical batch, the learning-rate rule, what to do with it.
[[nodiscard]] std::vector<std::string> write_verdict(const StudyOptions& options,
                                                     const StudyAnalysis& analysis);
}  // namespace trireme
