#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "study/study_analysis.h"
#include "study/study_report.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

StudyOptions options_of(double power) {
  StudyOptions options;
  options.config = "base.toml";
  options.budget_samples = 100000;
  options.lr = 1e-3;
  options.lr_base_batch = 64;
  options.lr_rule = LrScaling::kPower;
  options.lr_power = power;
  options.batch = {16, 32, 64, 128, 256};
  options.lr_factor = {0.25, 0.5, 1.0, 2.0, 4.0};
  options.seed = {1, 2, 3, 4};
  return options;
}

// The metric falls as 2 - samples / needed, so it passes 1 at `needed`.
StudyRun record_of(const RunSpec& spec, double needed, double budget) {
  StudyRun record;
  record.spec = spec;
  record.state = StudyRun::State::kFinished;
  for (int i = 0; i <= 10; ++i) {
    const double samples = budget * i / 10.0;
    record.evaluations.push_back({samples, 2.0 - samples / needed});
  }
  record.steps.push_back({budget, 0.5, 0.0});
  record.images_per_second = 100.0 * std::sqrt(static_cast<double>(spec.ranks));
  record.step_seconds = 0.1;
  return record;
}

// Samples grow with the batch by the trade-off curve, and with the squared log distance to the best
// learning rate, which grows as batch^0.5 whatever prior the study has.
std::vector<StudyRun> synthetic(const StudyOptions& options, double noise_scale) {
  std::vector<StudyRun> records;
  ResamplingRandom random(5);
  for (const auto& run : expand_grid(options)) {
    const auto batch = static_cast<double>(run.batch);
    const double off = std::log(run.lr / (1e-3 * std::sqrt(batch / 64.0)));
    const double needed =
        5000.0 * (1.0 + batch / noise_scale) * std::exp(0.3 * off * off + 0.02 * random.normal());
    records.push_back(record_of(run, needed, 100000.0));
  }
  return records;
}

TEST(StudyGridTest, EveryRunDiffersAndSharesSeeds) {
  StudyOptions options = options_of(0.5);
  options.ranks = {1, 2};
  options.warmup_samples = {0, 512};
  options.keys = {{"optim.weight_decay", {"0.0", "0.1"}}};
  const auto runs = expand_grid(options);
  EXPECT_EQ(runs.size(), 5U * 5 * 4 * 2 * 2 * 2);
  std::set<std::string> names;
  for (const auto& run : runs) names.insert(run.name);
  EXPECT_EQ(names.size(), runs.size());
  const auto sets = testing::PrintToString(runs.front().sets);
  EXPECT_THAT(sets, HasSubstr("run.steps=6250"));  // 100,000 samples of 16.
  EXPECT_THAT(sets, HasSubstr("optim.lr_base_batch=16"));
  EXPECT_NEAR(prior_lr(options, 256), 2e-3, 1e-12);
  options.lr_rule = LrScaling::kLinear;
  EXPECT_NEAR(prior_lr(options, 256), 4e-3, 1e-12);
  options.budget_samples = 100;
  EXPECT_THROW(options.validate(), UsageError);
}

RunStart fork_of(int64_t samples, int64_t seed) {
  return {.seed = seed,
          .checkpoint = "runs/" + std::to_string(seed),
          .step = samples / 16,
          .samples = samples,
          .global_batch = 16,
          .grow_at = {},
          .grow_to = {}};
}

StudyOptions forked_options() {
  StudyOptions options = options_of(0.5);
  options.config.clear();
  options.forks = {fork_of(1600, 7), fork_of(1600, 8), fork_of(10240, 7), fork_of(10240, 8)};
  options.lr_base_batch = 16;
  options.batch = {16, 32, 64};
  options.lr_factor = {1.0};
  options.budget_samples = 640;
  options.warmup_samples = {0};
  return options;
}

std::string refusal_of(const StudyOptions& options) {
  try {
    options.validate();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(StudyGridTest, EveryBatchDividesTheBudget) {
  StudyOptions options = options_of(0.5);
  options.budget_samples = 1000;  // 256 leaves 232 over, 16 leaves 8.
  EXPECT_THAT(refusal_of(options), HasSubstr("every batch divides is 1024."));
  options.budget_samples = 1024;
  EXPECT_EQ(refusal_of(options), "accepted");
  options.batch = {6, 4};
  EXPECT_THAT(refusal_of(options), HasSubstr("every batch divides is 1020."));
  options.batch = {1000003, 1000033, 1000037};
  options.budget_samples = 2000000;
  EXPECT_THAT(refusal_of(options), HasSubstr("have a common multiple"));
  StudyOptions forked = forked_options();
  forked.budget_samples = 650;
  EXPECT_THAT(refusal_of(forked), HasSubstr("every batch divides is 640."));
}

TEST(StudyGridTest, FactorsThatNamesDoNotTellApartAreRefused) {
  StudyOptions options = options_of(0.5);
  options.budget_samples = 1024;
  options.lr_factor = {1.0, 1.00001};
  EXPECT_THAT(refusal_of(options), HasSubstr("grid.lr_factor holds 1 and 1.00001"));
}

TEST(StudyGridTest, BranchesGoOnFromTheirCheckpointAndGrowItsBatch) {
  StudyOptions options = forked_options();
  options.validate();
  const auto runs = expand_grid(options);
  ASSERT_EQ(runs.size(), 2U * 3 * 2);
  EXPECT_EQ(runs[0].variant, "forked at 1600 samples");
  EXPECT_EQ(runs[0].seed, 7);
  EXPECT_EQ(runs[1].seed, 8);
  const auto sets = testing::PrintToString(runs[0].sets);
  EXPECT_THAT(sets, HasSubstr("batch.grow_to=[]"));  // Its own batch.
  EXPECT_THAT(sets, HasSubstr("run.steps=140"));     // 100 and 640 samples of 16.
  EXPECT_THAT(sets, Not(HasSubstr("run.seed")));
  const auto grown = testing::PrintToString(runs[4].sets);
  EXPECT_THAT(grown, HasSubstr("batch.grow_at=[1600]"));
  EXPECT_THAT(grown, HasSubstr("batch.grow_to=[64]"));
  EXPECT_THAT(grown, HasSubstr("run.steps=110"));
  EXPECT_THAT(grown, HasSubstr("optim.lr=0.002"));
  std::set<std::string> names;
  for (const auto& run : runs) names.insert(run.name);
  EXPECT_EQ(names.size(), runs.size());
}

TEST(StudyGridTest, BranchesThatCannotBeRunAreRefused) {
  StudyOptions options = forked_options();
  options.batch = {8, 16};
  EXPECT_THROW(options.validate(), UsageError);  // Shrinks.
  options = forked_options();
  options.forks.push_back(fork_of(1600, 7));
  EXPECT_THROW(options.validate(), UsageError);  // The same run twice.
  options = forked_options();
  options.config = "base.toml";
  EXPECT_THROW(options.validate(), UsageError);
}

TEST(StudyAnalysisTest, TheLargestLosslessBatchGrowsFromForkToFork) {
  const StudyOptions options = forked_options();
  std::vector<StudyRun> records;
  for (const auto& run : expand_grid(options)) {
    StudyRun record = record_of(run, 1000.0, 640.0);
    // Early, a doubled batch costs 3 %; later 0.6 %. A seed's own part cancels.
    const double cost = run.start.samples == 1600 ? 0.03 : 0.006;
    record.evaluations.back().value =
        (run.seed == 7 ? 0.5 : 0.6) * (1.0 + cost * std::log2(static_cast<double>(run.batch) / 16));
    records.push_back(std::move(record));
  }
  const auto analysis = analyse_study(options, records);
  ASSERT_EQ(analysis.lossless.size(), 2U);
  EXPECT_EQ(analysis.lossless[0].variant, "forked at 1600 samples");
  EXPECT_EQ(analysis.lossless[0].batch, 16);
  EXPECT_EQ(analysis.lossless[1].batch, 32);
  EXPECT_FALSE(analysis.fit.has_value());
  EXPECT_FALSE(analysis.batches[0].over_smallest.has_value());
  EXPECT_NEAR(analysis.batches[1].over_smallest->mean, 0.03, 1e-12);
  EXPECT_NEAR(analysis.batches[1].over_smallest->interval.high, 0.03, 1e-9);
  ASSERT_EQ(analysis.verdict.size(), 2U);
  EXPECT_THAT(analysis.verdict[1], HasSubstr("Forked at 10240 samples: at equal samples (640), "
                                             "batches up to 32 come within 1 %"));
  const std::string page = study_to_html(options, analysis, records, {});
  EXPECT_THAT(page, HasSubstr("against the smallest batch"));
  EXPECT_THAT(page, HasSubstr("+3 % (+3 to +3)"));
}

TEST(StudyAnalysisTest, FindsTheCriticalBatchAndTheExponentThatMadeTheRuns) {
  StudyOptions options = options_of(0.4);
  options.target = 1.0;
  const auto records = synthetic(options, 100.0);
  const StudyAnalysis analysis = analyse_study(options, records);
  ASSERT_EQ(analysis.batches.size(), 5U);
  ASSERT_TRUE(analysis.fit.has_value());
  EXPECT_NEAR(analysis.fit->curve.noise_scale, 100.0, 8.0);
  EXPECT_LE(analysis.fit->noise_scale_interval->low, 100.0);
  EXPECT_GE(analysis.fit->noise_scale_interval->high, 100.0);
  ASSERT_TRUE(analysis.lr_law.has_value());
  EXPECT_NEAR(analysis.lr_law->exponent, 0.5, 0.06);
  EXPECT_LE(analysis.lr_law->interval->low, 0.5);
  EXPECT_GE(analysis.lr_law->interval->high, 0.5);
  EXPECT_THAT(analysis.lr_law->verdict, HasSubstr("square-root rule fits and the linear"));
  EXPECT_TRUE(next_factors(analysis).empty());
  EXPECT_EQ(analysis.verdict.size(), 3U);
}

TEST(StudyAnalysisTest, AsksForRatesBeyondTheEdge) {
  StudyOptions options = options_of(0.5);
  options.target = 1.0;
  options.lr_factor = {0.125, 0.25};  // The best is at 1.
  const auto records = synthetic(options, 100.0);
  const StudyAnalysis analysis = analyse_study(options, records);
  const auto next = next_factors(analysis);
  ASSERT_EQ(next.size(), 5U);
  for (const auto& factor : next) EXPECT_DOUBLE_EQ(factor.lr_factor, 0.5);
  EXPECT_EQ(expand_factor(options, 16, "", 0.5).size(), 4U);
  EXPECT_FALSE(analysis.lr_law.has_value());  // No optimum is inside.
}

TEST(StudyAnalysisTest, CommonRandomNumbersSaveWhatTheyShare) {
  StudyOptions options = options_of(0.5);
  options.batch = {16};
  options.lr_factor = {1.0, 2.0};
  options.ranks = {1, 2};  // Settings that differ in ranks only are no pair.
  options.seed.clear();
  for (int64_t seed = 1; seed <= 400; ++seed) options.seed.push_back(seed);
  std::vector<StudyRun> records;
  ResamplingRandom own(9);
  for (const auto& run : expand_grid(options)) {
    // Three parts of variance belong to the seed, one to the run: correlation 3/4, ratio 1/4.
    ResamplingRandom of_seed(static_cast<uint64_t>(run.seed) + 1000);
    StudyRun record = record_of(run, 1000.0, 100000.0);
    record.evaluations.back().value =
        1.0 + 0.01 * (std::sqrt(3.0) * of_seed.normal() + own.normal());
    records.push_back(std::move(record));
  }
  const auto analysis = analyse_study(options, records);
  ASSERT_TRUE(analysis.common.has_value());
  EXPECT_EQ(analysis.common->num_pairs, 1);
  EXPECT_NEAR(analysis.common->correlation, 0.75, 0.05);
  EXPECT_NEAR(analysis.common->seeds_ratio, 0.25, 0.04);
  EXPECT_EQ(analysis.common_rates->seeds_ratio, analysis.common->seeds_ratio);
  EXPECT_FALSE(analysis.common_batches.has_value());  // There is one batch.
  EXPECT_LE(analysis.common->ratio_interval->low, 0.25);
  EXPECT_GE(analysis.common->ratio_interval->high, 0.25);
}

TEST(StudyAnalysisTest, RanksGiveEfficiencyAndLossParity) {
  StudyOptions options = options_of(0.5);
  options.batch = {16, 64};
  options.lr_factor = {1.0};
  options.ranks = {1, 4};
  std::vector<StudyRun> records;
  for (const auto& run : expand_grid(options)) {
    records.push_back(record_of(run, 1000.0, 100000.0));
    if (run.ranks == 4) records.back().steps.back().loss *= 1.001;
  }
  const auto analysis = analyse_study(options, records);
  ASSERT_EQ(analysis.scaling.size(), 4U);
  EXPECT_DOUBLE_EQ(analysis.scaling[1].efficiency, 0.5);  // Twice the rate on four times the ranks.
  EXPECT_FALSE(analysis.scaling[0].weak_efficiency.has_value());
  EXPECT_FALSE(analysis.scaling[1].weak_efficiency.has_value());
  EXPECT_DOUBLE_EQ(*analysis.scaling[3].weak_efficiency, 0.5);  // 64 on 4 ranks, as 16 on one.
  EXPECT_NEAR(*analysis.rank_loss_difference, 1e-3, 1e-9);
}

TEST(StudyAnalysisTest, BatchesAreComparedOnTheFewestRanks) {
  StudyOptions options = options_of(0.5);
  options.batch = {16, 64};
  options.lr_factor = {1.0};
  options.ranks = {1, 2};
  options.keys = {{"optim.weight_decay", {"0.0", "0.1"}}};
  std::vector<StudyRun> records;
  for (const auto& run : expand_grid(options)) {
    records.push_back(record_of(run, 1000.0, 100000.0));
    StudyRun& record = records.back();
    // On two ranks better by what rounding gives, for one of the batches.
    if (run.ranks == 2 && run.batch == 16) record.evaluations.back().value *= 1.0 + 1e-7;
    if (run.variant == "optim.weight_decay=0.1") record.images_per_second *= 10.0;
    if (run.seed == 1) record.state = StudyRun::State::kUnfinished;
    if (run.seed == 1) record.images_per_second *= 1e6;
    if (run.seed == 2) record.state = StudyRun::State::kDiverged;
    if (run.seed == 2) record.images_per_second *= 1e6;
  }
  const auto analysis = analyse_study(options, records);
  ASSERT_EQ(analysis.batches.size(), 4U);
  for (const auto& batch : analysis.batches) EXPECT_EQ(batch.best->ranks, 1);
  EXPECT_EQ(analysis.batches[1].images_per_second, 100.0);
  ASSERT_EQ(analysis.scaling.size(), 8U);
  for (size_t i = 0; i < 8; ++i) {
    const RankScaling& row = analysis.scaling[i];
    EXPECT_EQ(row.variant, i < 4 ? "optim.weight_decay=0.0" : "optim.weight_decay=0.1");
    EXPECT_DOUBLE_EQ(row.images_per_second,
                     (i < 4 ? 100.0 : 1000.0) * std::sqrt(static_cast<double>(row.ranks)));
  }
}

TEST(StudyAnalysisTest, SaysWhatIsWrongWithATarget) {
  StudyOptions options = options_of(0.5);
  const auto records = synthetic(options, 100.0);
  options.target = 2.5;  // Runs start at 2.
  EXPECT_THAT(analyse_study(options, records).verdict[0],
              HasSubstr("study.target = 2.5 is met before the first step, where val_loss is 2."));
  const auto page = study_to_html(options, analyse_study(options, records), records, {});
  EXPECT_THAT(page, HasSubstr("met before the first step"));
  options.target = -1e9;
  EXPECT_THAT(analyse_study(options, records).verdict[0],
              HasSubstr("no run reaches study.target = -1,000,000,000; the lowest val_loss is"));
}

TEST(StudyAnalysisTest, StepsAndSecondsHaveTheIntervalOfSamples) {
  StudyOptions options = options_of(0.4);
  options.target = 1.0;
  const auto records = synthetic(options, 100.0);
  const auto analysis = analyse_study(options, records);
  const auto json = study_to_json(options, analysis, {})["batches"][1];
  EXPECT_EQ(json["batch"], 32);
  for (int end = 0; end < 2; ++end) {
    const double samples = json["samples_to_target"]["interval"][end];
    EXPECT_DOUBLE_EQ(json["steps_to_target_interval"][end], samples / 32.0);
    EXPECT_NEAR(json["seconds_to_target_interval"][end], samples / 100.0, 1e-9 * samples);
  }
}

TEST(StudyAnalysisTest, TheCriticalBatchNamesWhatWasNotTuned) {
  StudyOptions options = options_of(0.5);
  options.target = 1.0;
  auto records = synthetic(options, 100.0);
  EXPECT_THAT(analyse_study(options, records).verdict[0], Not(HasSubstr("edge")));
  std::erase_if(records, [](const StudyRun& record) {
    return record.spec.batch == 32 && record.spec.lr_factor > 1.0;
  });
  EXPECT_THAT(analyse_study(options, records).verdict[0],
              HasSubstr("at the edge of those tried at batch 32.)"));
}

TEST(StudyAnalysisTest, MoreOfAClipScoreIsBetter) {
  StudyOptions options = options_of(0.5);
  options.metric = "clip_score";
  options.batch = {16, 64};
  options.lr_factor = {1.0, 2.0};
  std::vector<StudyRun> records;
  for (const auto& run : expand_grid(options)) {
    StudyRun record = record_of(run, 1000.0, 100000.0);
    record.sign = -1.0;
    // From 10 up to 30, or to 20 at twice the rate.
    const double gain = run.lr_factor > 1.0 ? 1.0 : 2.0;
    for (auto& evaluation : record.evaluations) {
      evaluation.value = 10.0 + gain * evaluation.samples / 10000.0;
    }
    EXPECT_FALSE(looks_diverged(record));
    records.push_back(std::move(record));
  }
  const auto analysis = analyse_study(options, records);
  EXPECT_EQ(analysis.target, 30.0);
  ASSERT_EQ(analysis.batches.size(), 2U);
  for (const auto& batch : analysis.batches) {
    EXPECT_EQ(batch.best->lr_factor, 1.0);
    EXPECT_NEAR(batch.samples->mean, 100000.0, 1.0);
  }
  EXPECT_THAT(analysis.verdict[2], HasSubstr("batches up to 64 come within 1 % of the highest"));
  options.target = 25.0;
  EXPECT_NEAR(analyse_study(options, records).batches[0].samples->mean, 75000.0, 1.0);
}

TEST(StudyReportTest, HoldsEverythingAndNothingInfinite) {
  StudyOptions options = options_of(0.4);
  options.name = "a <b> study";
  auto records = synthetic(options, 100.0);
  records.front().state = StudyRun::State::kDiverged;
  const auto analysis = analyse_study(options, records);
  const std::string page = study_to_html(options, analysis, records, {});
  EXPECT_THAT(page, HasSubstr("a &lt;b&gt; study"));
  EXPECT_THAT(page, HasSubstr("<svg"));
  EXPECT_THAT(page, Not(HasSubstr("unbounded")));
  const auto json = study_to_json(options, analysis, {});
  EXPECT_EQ(json["batches"].size(), 5U);
  EXPECT_EQ(json["target_from"], "worst_batch");
  const std::string csv = study_to_csv(analysis, records);
  const Points points = parse_points(
      csv, "runs.csv", {.samples_column = "samples", .where = {parse_column_filter("is_best=1")}});
  EXPECT_EQ(points.num_runs, 20);
  // Nothing at all is no crash.
  EXPECT_THAT(study_to_html(options, analyse_study(options, {}), {}, {}), HasSubstr("<html"));
}

TEST(StudyRunTest, ReadsWhatIsThere) {
  const auto folder = std::filesystem::temp_directory_path() / "trireme-study-test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const RunSpec spec = expand_grid(options_of(0.5)).front();
  using State = StudyRun::State;
  EXPECT_EQ(read_study_run(folder, spec, "val_loss").state, State::kAbsent);
  std::ofstream(folder / "metrics.jsonl")
      << R"({"kind":"eval","step":0,"val_loss":1.0})"
      << "\n"
      << R"({"kind":"train","step":1,"samples":16,"loss":null,"images_per_second":5,"noise_scale":7})"
      << "\n"
      << R"({"kind":"eval","step":1,"val_loss":2.5})"
      << "\n"
      << R"({"kind":"tra)";
  const StudyRun record = read_study_run(folder, spec, "val_loss");
  EXPECT_EQ(record.state, State::kUnfinished);
  ASSERT_EQ(record.evaluations.size(), 2U);
  EXPECT_EQ(record.evaluations[1].samples, 16.0);
  EXPECT_TRUE(std::isnan(record.steps[0].loss));
  EXPECT_EQ(record.steps[0].noise_scale, 7.0);
  EXPECT_TRUE(looks_diverged(record));
  write_state(folder, State::kDiverged);
  EXPECT_EQ(read_study_run(folder, spec, "val_loss").state, State::kDiverged);
  for (const char* damaged : {"{", "[]", R"({"state":5})", R"({"state":"done"})", R"({"set":5})"}) {
    std::ofstream(folder / "study.json") << damaged;
    EXPECT_EQ(read_study_run(folder, spec, "val_loss").state, State::kUnfinished) << damaged;
  }
  const StudyRun other = read_study_run(folder, spec, "val_los");
  EXPECT_TRUE(other.evaluations.empty());
  EXPECT_EQ(other.evaluated, std::vector<std::string>{"val_loss"});
  std::filesystem::remove_all(folder);
}
}  // namespace
}  // namespace trireme
