#include "study/tradeoff_fit.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;

std::vector<BatchRuns> published(const std::vector<std::string>& where) {
  PointsQuery query{.samples_column = "samples_to_target", .where = {}};
  for (const auto& text : where) query.where.push_back(parse_column_filter(text));
  return read_points(std::string(TRIREME_SOURCE_DIR) + "/study/published/mlperf_rcp_diffusion.csv",
                     query)
      .batches;
}

struct Published {
  std::vector<std::string> where;
  double e_min;
  double noise_scale;
  Interval interval;
  double held_out;
};

// Fits of Stable Diffusion v2 and FLUX.1, found with an independent program.
TEST(TradeoffFitTest, PublishedPointsGiveThePublishedFits) {
  const std::vector<Published> table = {
      {{"benchmark=stable_diffusion", "round=4.0.0", "batch!=384"},
       2.05e6,
       2240,
       {1880, 2720},
       -0.18},
      {{"benchmark=stable_diffusion", "round=4.0.0"}, 2.16e6, 2550, {2080, 3070}, -0.18},
      {{"benchmark=stable_diffusion", "round=5.0.0"}, 1.46e6, 1130, {980, 1310}, 0.07},
      {{"benchmark=flux1", "round=5.1.0"}, 6.87e6, 3360, {3200, 3540}, -0.10},
      {{"benchmark=flux1", "round=6.0.0"}, 6.11e6, 2770, {2660, 2890}, -0.05},
  };
  for (const auto& row : table) {
    SCOPED_TRACE(row.where[0] + " " + row.where[1]);
    const TradeoffFit fit = fit_tradeoff(published(row.where));
    EXPECT_NEAR(fit.curve.e_min / row.e_min, 1.0, 0.005);
    EXPECT_NEAR(fit.curve.noise_scale / row.noise_scale, 1.0, 0.01);
    // Ends of a bootstrap interval are themselves only known to a few percent.
    EXPECT_NEAR(fit.noise_scale_interval->low / row.interval.low, 1.0, 0.04);
    EXPECT_NEAR(fit.noise_scale_interval->high / row.interval.high, 1.0, 0.04);
    EXPECT_NEAR(fit.held_out->miss(), row.held_out, 0.006);
  }
}

std::vector<BatchRuns> synthetic(const std::vector<double>& batches, int num_runs, double spread,
                                 double noise_scale, uint64_t seed) {
  ResamplingRandom random(seed);
  std::vector<BatchRuns> runs;
  for (const double batch : batches) {
    BatchRuns& at_batch = runs.emplace_back(BatchRuns{.batch = batch, .samples = {}});
    for (int i = 0; i < num_runs; ++i) {
      at_batch.samples.push_back(1e5 * (1.0 + batch / noise_scale) *
                                 std::exp(spread * random.normal()));
    }
  }
  return runs;
}

struct Problem {
  std::vector<double> batches;
  int num_runs;
  double spread;
};

TEST(TradeoffFitTest, IntervalHoldsTheTruthInNineOfTenSyntheticProblems) {
  constexpr double kTruth = 200.0;
  const std::vector<Problem> problems = {
      {{16, 64, 256, 1024}, 5, 0.05},      {{16, 64, 256, 1024}, 2, 0.10},
      {{8, 32, 128, 512}, 20, 0.20},       {{8, 16, 32, 64, 128, 256, 512, 1024}, 1, 0.05},
      {{64, 128, 256, 512, 1024}, 3, 0.1},
  };
  for (size_t p = 0; p < problems.size(); ++p) {
    const auto& [batches, num_runs, spread] = problems[p];
    int num_covered = 0;
    for (uint64_t seed = 0; seed < 100; ++seed) {
      const auto runs = synthetic(batches, num_runs, spread, kTruth, 1000 * p + seed + 1);
      const auto fit = fit_tradeoff(runs, {.num_draws = 500, .seed = seed});
      const auto& interval = fit.noise_scale_interval.value();
      num_covered += interval.low <= kTruth && kTruth <= interval.high ? 1 : 0;
    }
    EXPECT_GE(num_covered, 90) << "problem " << p;
  }
}

TEST(TradeoffFitTest, ExactPointsGiveTheExactCurve) {
  const auto runs = synthetic({8, 32, 128, 512}, 1, 0.0, 100.0, 1);
  const TradeoffFit fit = fit_tradeoff(runs);
  EXPECT_NEAR(fit.curve.noise_scale, 100.0, 1e-3);
  EXPECT_NEAR(fit.curve.e_min, 1e5, 1.0);
  EXPECT_NEAR(fit.curve.s_min(), 1000.0, 0.02);
  EXPECT_NEAR(fit.held_out->miss(), 0.0, 1e-5);
  // (S / S_min - 1)(E / E_min - 1) = 1 at any batch.
  const double steps = fit.curve.steps_at(300.0) / fit.curve.s_min();
  const double samples = fit.curve.samples_at(300.0) / fit.curve.e_min;
  EXPECT_NEAR((steps - 1.0) * (samples - 1.0), 1.0, 1e-9);
}

TEST(TradeoffFitTest, SaysWhereTheDataCannotTell) {
  const std::vector<BatchRuns> flat = {{8, {1000, 1000}}, {16, {1000, 1000}}, {32, {990, 1000}}};
  EXPECT_EQ(fit_tradeoff(flat).identified, TradeoffFit::Identified::kTooHigh);
  const std::vector<BatchRuns> steep = {{8, {1000}}, {16, {2100}}, {32, {4500}}};
  EXPECT_EQ(fit_tradeoff(steep).identified, TradeoffFit::Identified::kTooLow);
  const std::vector<BatchRuns> two = {{8, {1000}}, {16, {1200}}};
  EXPECT_FALSE(fit_tradeoff(two).noise_scale_interval.has_value());
  EXPECT_FALSE(fit_tradeoff(two).held_out.has_value());
  const std::vector<BatchRuns> one = {{8, {1000, 1100}}};
  EXPECT_THROW((void)fit_tradeoff(one), InputError);
}

// The rule for many runs must give the interval that resampling would.
TEST(TradeoffFitTest, ManyRunsAreResampledByTheirMean) {
  const auto some = synthetic({16, 64, 256}, 100, 0.3, 100.0, 3);
  auto more = some;
  for (auto& batch : more) batch.samples.push_back(mean_of(batch.samples));
  const Interval drawn = *fit_tradeoff(some, {.num_draws = 4000}).noise_scale_interval;
  const Interval normal = *fit_tradeoff(more, {.num_draws = 4000}).noise_scale_interval;
  EXPECT_NEAR(normal.low / drawn.low, 1.0, 0.03);
  EXPECT_NEAR(normal.high / drawn.high, 1.0, 0.03);
}

std::string message_of(std::string_view text, const PointsQuery& query = {}) {
  try {
    (void)parse_points(text, "p.csv", query);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(PointsTest, ReadsQuotedFieldsCommentsAndFilters) {
  const Points points = parse_points(
      "\xef\xbb\xbf\"batch\",who,samples\r\n# a comment, with a comma\r\n8,\"a, \"\"b\"\"\",100\r\n"
      "8.0,x,\r\n\n16,x,2e2",
      "p.csv", {});
  ASSERT_EQ(points.batches.size(), 2U);
  EXPECT_EQ(points.batches[1].samples, std::vector<double>{200.0});
  EXPECT_EQ(points.num_runs, 2);
  EXPECT_EQ(points.num_without_value, 1);
  const PointsQuery query{.samples_column = "samples",
                          .where = {parse_column_filter("batch!=16.0")}};
  EXPECT_EQ(parse_points("batch,samples\n8,1\n16,2\n4,1\n", "p.csv", query).num_runs, 2);
}

TEST(PointsTest, NamesTheLineOfABadValue) {
  EXPECT_THAT(message_of("batch,samples\n8,1\n16,many\n"), HasSubstr("p.csv:3: samples is 'many'"));
  EXPECT_THAT(message_of("batch,samples\n-8,1\n"), HasSubstr("p.csv:2: batch is '-8'"));
  EXPECT_THAT(message_of("batch,samples\n8,1,3\n"), HasSubstr("p.csv:2: 3 fields"));
  EXPECT_THAT(message_of("batch,sample\n8,1\n"), HasSubstr("did you mean 'sample'?"));
  EXPECT_THAT(message_of("batch,samples\n8,\"1\n"), HasSubstr("no closing quote"));
  EXPECT_THAT(message_of(""), HasSubstr("is empty"));
  EXPECT_THAT(message_of("batch,samples\n"), HasSubstr("no line with a value"));
  EXPECT_THAT(message_of("batch,samples,batch\n8,1,16\n"), HasSubstr("column 'batch' twice"));
  EXPECT_THAT(message_of("batch,samples\n8,1\n16,1e308\n"),
              HasSubstr("p.csv:3: samples is '1e308', which no training has"));
  EXPECT_THAT(message_of("batch,samples\n8,1\n8,2\n"), HasSubstr("runs of one batch"));
  EXPECT_THROW((void)parse_points("batch,samples\n8,1\n", "p.csv", {}), InputError);
  const PointsQuery query{.samples_column = "samples", .where = {parse_column_filter("batch=8")}};
  EXPECT_THROW((void)parse_points("batch,samples\n8,1\n16,2\n", "p.csv", query), UsageError);
  std::string many = "batch,samples\n";
  for (int i = 1; i < 300; ++i) many += std::to_string(i) + ",1\n";
  EXPECT_THAT(message_of(many), HasSubstr("299 different batches"));
  EXPECT_THROW((void)parse_column_filter("round"), UsageError);
}
}  // namespace
}  // namespace trireme
