// What the keys of a CONFIG and the measurements of a machine change in a plan.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "study/calibration.h"
#include "study/plan.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

PlanInputs inputs_of(const ParallelOptions& parallel) {
  PlanInputs inputs;
  const std::string file = std::string(TRIREME_SOURCE_DIR) + "/tests/study/configs/sd2.json";
  inputs.network = count_network(read_json_object(file, "model config"), file, {64, 64, 77});
  inputs.gpu = find_gpu("h100");
  inputs.fabric = fabric_of(inputs.gpu);
  inputs.config.batch.global = 512;
  inputs.config.run.steps = 10;
  inputs.config.parallel = parallel;
  inputs.compute = preset_compute(inputs.gpu, inputs.network, parallel);
  inputs.reduction.buckets = plan_bucket_times(inputs.network, 0);
  inputs.memory = {
      .bytes_per_weight = 4, .bytes_per_trained = 4, .bytes_per_state = 8, .bytes_per_stored = 2};
  inputs.total_samples = 1e6;
  return inputs;
}

PlanRow row_of(const PlanInputs& inputs, int num_ranks) {
  return plan_rows(inputs, std::array{num_ranks}).front();
}

TEST(PlanConfigTest, Float32ReachesTheSameShareOfItsOwnPeak) {
  const PlanInputs half = inputs_of({.precision = Precision::kBf16});
  const PlanInputs full = inputs_of({.precision = Precision::kFp32});
  double convolutions = 0.0;
  double others = 0.0;
  for (const auto& layer : full.network.layers) {
    const double flops = 2.0 * (layer.macs + layer.backward_macs());
    (layer.kernel == LayerCost::Kernel::kConvolution ? convolutions : others) += flops;
  }
  EXPECT_GT(convolutions, others);
  const double seconds = convolutions / 494.5e12 + others / 67e12;
  EXPECT_NEAR(full.compute.seconds_per_sample, seconds / 0.37, 1e-9);
  EXPECT_NEAR(half.compute.seconds_per_sample, (convolutions + others) / (0.37 * 989e12), 1e-9);
  EXPECT_NEAR(peak_tflops(full.gpu, full.network, Precision::kFp32),
              (convolutions + others) / seconds / 1e12, 1e-6);
  // The fixed cost is all that keeps a step from the efficiency of the preset.
  const PlanRow row = row_of(full, 1);
  EXPECT_NEAR(row.mfu, 0.37 * (1.0 - row.step.fixed_seconds / row.step.total()), 1e-6);
}

// What the model above assumes.
TEST(PlanConfigTest, LibTorchRoundsToTf32InConvolutionsOnly) {
  EXPECT_TRUE(at::globalContext().allowTF32CuDNN());
  EXPECT_FALSE(at::globalContext().allowTF32CuBLAS());
}

TEST(PlanConfigTest, CheckpointedActivationsTakeTimeAndSpareMemory) {
  const PlanInputs plain = inputs_of({.precision = Precision::kBf16});
  const PlanInputs again =
      inputs_of({.precision = Precision::kBf16, .activation_checkpointing = true});
  const NetworkCost& network = plain.network;
  // All but the ends of a UNet lies in its blocks.
  EXPECT_LT(network.recomputed_flops(), network.forward_flops());
  EXPECT_GT(network.recomputed_flops(), 0.99 * network.forward_flops());
  EXPECT_NEAR(again.compute.seconds_per_sample / plain.compute.seconds_per_sample,
              1.0 + network.recomputed_flops() / network.training_flops(), 1e-9);
  const PlanRow with = row_of(again, 8);
  const PlanRow without = row_of(plain, 8);
  EXPECT_NEAR(with.step.forward_seconds, without.step.forward_seconds, 1e-9);
  EXPECT_LT(with.mfu, without.mfu);  // Model FLOPs stay what they are.
  EXPECT_LT(with.memory_bytes, 0.5 * without.memory_bytes);
}

TEST(PlanConfigTest, CheckpointingKeepsInputsOfBlocksAndTheLargestBlock) {
  NetworkCost network;
  network.layers = {
      {.name = "outside", .parameters = {}, .stored = 5.0},
      {.name = "a.1", .parameters = {}, .stored = 100.0, .block = 0, .block_input = 7.0},
      {.name = "a.2", .parameters = {}, .stored = 20.0, .block = 0},
      {.name = "b.1", .parameters = {}, .stored = 110.0, .block = 1, .block_input = 3.0},
  };
  EXPECT_EQ(network.stored_elements(), 235.0);
  EXPECT_EQ(network.checkpointed_elements(), 5.0 + 7.0 + 3.0 + 120.0);
}

TEST(StepModelTest, OnlyTheLastMicroBatchHidesCommunication) {
  Fabric fabric = fabric_of(find_gpu("a100"));
  fabric.num_ranks = 8;
  const ComputeModel compute = {.seconds_per_sample = 0.03};
  ReductionPlan reduction;
  reduction.buckets = {{500'000'000, 0.5}, {1, 1.0}};  // 14.6 ms
  const StepTime whole = predict_step(compute, reduction, fabric, 4.0);
  EXPECT_LT(whole.comm_exposed_seconds, 1e-3);
  reduction.micro = 1;  // A backward of 0.02 s, of 0.08 s a step.
  const StepTime last = predict_step(compute, reduction, fabric, 4.0);
  reduction.micro = 0;
  const StepTime alone = predict_step(compute, reduction, fabric, 1.0);
  EXPECT_NEAR(last.backward_seconds, 0.08, 1e-12);
  EXPECT_NEAR(last.comm_exposed_seconds, alone.comm_exposed_seconds, 1e-12);
  EXPECT_GT(last.comm_exposed_seconds, 4e-3);
  // Pieces of `shards` are passes too: 32 samples in 32 pieces.
  reduction.shards = 32;
  EXPECT_EQ(reduction.samples_per_pass(8, 4.0), 1.0);
}

TEST(StepModelTest, SixteenBitsTravelAsExchangedSlicesAndGatheredSums) {
  Fabric fabric = fabric_of(find_gpu("h100"));
  fabric.num_ranks = 8;
  ReductionPlan reduction;
  for (int i = 0; i < 4; ++i) reduction.buckets.push_back({100'000'000, 1.0});
  reduction.bytes_per_gradient = 2.0;
  reduction.sum = ReductionPlan::Sum::kAfterExchange;
  const double bytes = 2e8;
  const double exchange = collective_time(fabric, Collective::kExchange, bytes).seconds;
  EXPECT_NEAR(exchange, 7.0 / 8.0 * bytes / 370.8e9, 20e-6);
  const double gather = collective_time(fabric, Collective::kAllGather, bytes).seconds;
  const StepTime step = predict_step({.seconds_per_sample = 0.1}, reduction, fabric, 1.0);
  EXPECT_NEAR(step.comm_seconds, 4.0 * (exchange + gather), 1e-12);
  reduction.mode = ReductionPlan::Mode::kShardOptimizer;  // Parameters are gathered instead.
  const StepTime sharded = predict_step({.seconds_per_sample = 0.1}, reduction, fabric, 1.0);
  const double parameters = collective_time(fabric, Collective::kAllGather, 2.0 * bytes).seconds;
  EXPECT_NEAR(sharded.comm_seconds, 4.0 * (exchange + parameters), 1e-12);
  // Between nodes a rank's slices leave by its own NIC, the sums in rings over all NICs.
  fabric.num_ranks = 16;
  EXPECT_NEAR(collective_time(fabric, Collective::kExchange, bytes).seconds, 0.5 * bytes / 50e9,
              30e-6);
}

TEST(PlanConfigTest, WhatTheTrainerRefusesIsNotPossible) {
  PlanInputs inputs = inputs_of({.precision = Precision::kBf16});
  inputs.config.batch.global = 64;
  EXPECT_TRUE(row_of(inputs, 4).is_possible);
  const PlanRow three = row_of(inputs, 3);
  EXPECT_FALSE(three.is_possible);
  EXPECT_THAT(three.refusal, HasSubstr("batch.global = 64 cannot be divided"));
  EXPECT_EQ(plan_to_json(inputs, std::array{three})["rows"][0]["reason"], three.refusal);
  inputs.config.batch.micro = 3;
  EXPECT_FALSE(row_of(inputs, 4).is_possible);
  inputs.config.batch.micro = 0;
  inputs.config.parallel.shards = 8;
  EXPECT_FALSE(row_of(inputs, 16).is_possible);
}

TEST(PlanConfigTest, TheBestBatchFitsOrSaysThatItIsAnExtrapolation) {
  PlanInputs inputs = inputs_of({.precision = Precision::kBf16});
  inputs.tradeoff = BatchTradeoff{.noise_scale = 1e6, .e_min = 1e6};
  const PlanRow whole = row_of(inputs, 8);
  EXPECT_EQ(whole.best_limit, BatchLimit::kMemory);
  PlanInputs there = inputs;
  there.config.batch.global = static_cast<int64_t>(whole.best_batch);
  EXPECT_TRUE(row_of(there, 8).fits);
  there.config.batch.global *= 2;
  EXPECT_FALSE(row_of(there, 8).fits);

  inputs.config.batch.micro = 8;
  const PlanRow accumulating = row_of(inputs, 8);
  EXPECT_EQ(accumulating.best_limit, BatchLimit::kNone);
  EXPECT_GT(accumulating.best_batch, whole.best_batch);
  EXPECT_LT(accumulating.best_batch, 4e6);

  inputs.tradeoff->noise_scale = 10.0;
  EXPECT_EQ(row_of(inputs, 8).best_limit, BatchLimit::kNoiseScale);
  inputs.tradeoff->noise_scale = 1000.0;
  inputs.config.parallel.shards = 8;  // Three ranks cannot share them.
  EXPECT_EQ(row_of(inputs, 3).best_batch, 0.0);
}

TEST(PlanConfigTest, OneEMinServesAllRowsOfWeakScaling) {
  PlanInputs inputs = inputs_of({.precision = Precision::kBf16});
  inputs.config.batch.global = 0;
  inputs.config.batch.per_rank = 8;
  inputs.tradeoff = BatchTradeoff{.noise_scale = 64.0};
  const std::array<int, 2> ranks = {64, 8};
  settle_e_min(inputs, ranks);
  EXPECT_EQ(inputs.tradeoff->reference_batch, 64.0);
  EXPECT_NEAR(inputs.tradeoff->e_min, 0.5e6, 1e-6);
  const auto rows = plan_rows(inputs, ranks);
  EXPECT_NEAR(rows[1].train_seconds * rows[1].samples_per_second, 1e6, 1e-3);
  EXPECT_NEAR(rows[0].train_seconds * rows[0].samples_per_second, 0.5e6 * (1 + 512 / 64.0), 1e-3);
}

TEST(CalibrationTest, LinksAndNetworkAreFittedApart) {
  Fabric fabric = fabric_of(find_gpu("h100"));
  Fabric truth = fabric;
  truth.links_gbps *= 0.8;
  truth.links_latency_scale = 2.0;
  truth.nic_gbps *= 0.5;
  truth.latency_scale = 3.0;
  std::vector<MeasuredAllReduce> measured;
  for (const int ranks : {8, 32}) {
    truth.num_ranks = ranks;
    for (const double bytes : {1e5, 1e7, 1e9}) {
      measured.push_back({bytes, all_reduce_bus_gbps(truth, bytes), ranks});
    }
  }
  const Fabric found = calibrate_fabric(fabric, measured);
  EXPECT_NEAR(found.links_gbps / truth.links_gbps, 1.0, 0.01);
  EXPECT_NEAR(found.links_latency_scale / 2.0, 1.0, 0.01);
  EXPECT_NEAR(found.nic_gbps / truth.nic_gbps, 1.0, 0.01);
  EXPECT_NEAR(found.latency_scale / 3.0, 1.0, 0.01);
  // Measured between nodes only: the links stay the preset's.
  const Fabric outside = calibrate_fabric(fabric, std::span(measured).last(3));
  EXPECT_EQ(outside.links_gbps, fabric.links_gbps);
  EXPECT_EQ(outside.links_latency_scale, 1.0);
  EXPECT_LT(outside.nic_gbps, 0.6 * fabric.nic_gbps);
}

TEST(CalibrationTest, AllReducesHaveRanksOrAreOfANode) {
  Calibration calibration;
  parse_calibration("bytes,bus_gbps\n1e6,5\n1e9,100\n", "a.csv", calibration);
  parse_calibration("ranks,bytes,bus_gbps\n32,1e6,5\n32,1e9,100\n", "b.csv", calibration);
  place_all_reduces(fabric_of(find_gpu("h100")), calibration);
  ASSERT_EQ(calibration.all_reduces.size(), 4U);
  EXPECT_EQ(calibration.all_reduces[0].num_ranks, 8);
  EXPECT_EQ(calibration.all_reduces[3].num_ranks, 32);
  EXPECT_THAT([&] { parse_calibration("ranks,bytes,bus_gbps\n1,1e6,5\n", "c.csv", calibration); },
              ThrowsMessage<InputError>(HasSubstr("c.csv:2: ranks is '1'")));
}

TEST(CalibrationTest, AFileWithoutAMeasurementIsRefused) {
  for (const char* text : {"bytes,bus_gbps\n", "ranks,samples_per_rank,images_per_second\n",
                           R"({"ranks": 2, "results": []})"}) {
    Calibration calibration;
    EXPECT_THAT([&] { parse_calibration(text, "a.csv", calibration); },
                ThrowsMessage<InputError>(HasSubstr("a.csv holds no measurement")))
        << text;
  }
  for (const char* ranks : {"3000000000000", "1", "-5", "1e30"}) {
    Calibration calibration;
    const std::string text = std::string("{\"ranks\": ") + ranks + ", \"results\": []}";
    EXPECT_THROW(parse_calibration(text, "bench.json", calibration), InputError) << ranks;
  }
}

TEST(CalibrationTest, OneSizeOfAllReducesIsRefused) {
  const Fabric fabric = fabric_of(find_gpu("h100"));
  Calibration one;
  parse_calibration("bytes,bus_gbps\n1e6,5\n1e6,6\n", "a.csv", one);
  EXPECT_THAT([&] { place_all_reduces(fabric, one); },
              ThrowsMessage<InputError>(HasSubstr("within a node")));
  Calibration two;
  parse_calibration("bytes,bus_gbps,ranks\n1e6,5,8\n1e9,9,8\n1e9,6,16\n", "a.csv", two);
  EXPECT_THAT([&] { place_all_reduces(fabric, two); },
              ThrowsMessage<InputError>(HasSubstr("between nodes")));
}
}  // namespace
}  // namespace trireme
