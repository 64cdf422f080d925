#include "launcher/launch_plan.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"
#include "launcher/rank_environment.h"

namespace trireme {
namespace {
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Machine machine_with(int cores, int gpus) {
  Machine machine;
  machine.num_cores = cores;
  machine.num_processing_units = 2 * cores;
  machine.gpus.resize(static_cast<size_t>(gpus));
  return machine;
}

LaunchRequest request_for(Build build, int ranks = 0) {
  LaunchRequest request;
  request.num_ranks = ranks;
  request.build = build;
  request.program = "/opt/trireme";
  request.arguments = {"train", "a.toml"};
  return request;
}

bool has_words(const LaunchPlan& plan, const std::vector<std::string>& words) {
  return std::ranges::search(plan.command, words).begin() != plan.command.end();
}

TEST(LaunchPlanTest, OneRankPerGpuSharesTheCores) {
  const LaunchPlan plan = plan_launch(machine_with(64, 4), request_for(Build::kCuda));
  EXPECT_EQ(plan.num_ranks, 4);
  EXPECT_EQ(plan.threads_per_rank, 16);
  EXPECT_TRUE(has_words(plan, {"-np", "4", "/opt/trireme", "train", "a.toml"}));
  EXPECT_TRUE(has_words(plan, {"-x", "OMP_NUM_THREADS=16"}));
  EXPECT_TRUE(has_words(plan, {"--bind-to", "none"}));
  EXPECT_THAT(plan.command, Not(Contains("--oversubscribe")));
  EXPECT_THAT(plan.command, Not(Contains("--allow-run-as-root")));
}

TEST(LaunchPlanTest, MoreRanksThanGpusIsAUsageError) {
  EXPECT_THROW(plan_launch(machine_with(8, 2), request_for(Build::kCuda, 3)), UsageError);
  EXPECT_EQ(plan_launch(machine_with(8, 2), request_for(Build::kCuda, 2)).num_ranks, 2);
  EXPECT_EQ(plan_launch(machine_with(8, 2), request_for(Build::kCpu, 3)).num_ranks, 3);
}

TEST(LaunchPlanTest, ACpuBuildLeavesGpusAndSaysSo) {
  const LaunchPlan plan = plan_launch(machine_with(8, 2), request_for(Build::kCpu));
  EXPECT_EQ(plan.num_ranks, 4);
  EXPECT_THAT(plan.explanation, HasSubstr("2 GPUs left unused"));
}

TEST(LaunchPlanTest, WithoutGpuThereIsARankForTwoCores) {
  EXPECT_EQ(plan_launch(machine_with(1, 0), request_for(Build::kCpu)).num_ranks, 1);
  EXPECT_EQ(plan_launch(machine_with(2, 0), request_for(Build::kCpu)).num_ranks, 1);
  EXPECT_EQ(plan_launch(machine_with(7, 0), request_for(Build::kCpu)).num_ranks, 3);
  EXPECT_EQ(plan_launch(machine_with(128, 0), request_for(Build::kCuda)).num_ranks, 8);
}

TEST(LaunchPlanTest, MoreRanksThanCoresYieldAndHaveOneThread) {
  const LaunchPlan plan = plan_launch(machine_with(2, 0), request_for(Build::kCpu, 4));
  EXPECT_EQ(plan.threads_per_rank, 1);
  EXPECT_TRUE(has_words(plan, {"--oversubscribe", "--mca", "mpi_yield_when_idle", "1"}));
}

TEST(LaunchPlanTest, RootIsAllowed) {
  LaunchRequest request = request_for(Build::kCpu, 2);
  request.user = User::kRoot;
  EXPECT_THAT(plan_launch(machine_with(2, 0), request).command, Contains("--allow-run-as-root"));
}

TEST(LaunchPlanTest, HostsAddUp) {
  LaunchRequest request = request_for(Build::kCuda);
  request.hosts = parse_hosts("a:4,b:2,c");
  const LaunchPlan plan = plan_launch(machine_with(32, 8), request);
  EXPECT_EQ(plan.num_ranks, 14);
  EXPECT_TRUE(has_words(plan, {"--host", "a:4,b:2,c:8"}));
  request.num_ranks = 5;
  EXPECT_THROW(plan_launch(machine_with(32, 8), request), UsageError);
  request.num_ranks = 0;
  EXPECT_THROW(plan_launch(machine_with(32, 0), request), UsageError);
}

TEST(LaunchPlanTest, OtherHostsAreToldTheEnvironmentByName) {
  LaunchRequest request = request_for(Build::kCpu);
  request.exported = {"NCCL_DEBUG", "OMP_NUM_THREADS"};
  EXPECT_FALSE(has_words(plan_launch(machine_with(4, 0), request), {"-x", "NCCL_DEBUG"}));
  request.hosts = parse_hosts("a:4,b:4");
  const LaunchPlan plan = plan_launch(machine_with(4, 0), request);
  EXPECT_TRUE(has_words(plan, {"-x", "NCCL_DEBUG"}));
  EXPECT_FALSE(has_words(plan, {"-x", "OMP_NUM_THREADS"}));  // It has a value of its own.
}

TEST(LaunchPlanTest, LabelsAreTheStarters) {
  LaunchRequest request = request_for(Build::kCpu, 2);
  request.labels = LineLabels::kRank;
  EXPECT_THAT(plan_launch(machine_with(2, 0), request).command, Contains("--tag-output"));
  request.starter = Starter::kSrun;
  EXPECT_THAT(plan_launch(machine_with(2, 0), request).command, Contains("--label"));
}

TEST(LaunchPlanTest, AnAllocationGetsSrun) {
  LaunchRequest request = request_for(Build::kCuda);
  request.starter = Starter::kSrun;
  request.num_nodes = 3;
  request.cpus_per_task = 6;
  const LaunchPlan plan = plan_launch(machine_with(32, 4), request);
  EXPECT_EQ(plan.command.front(), "srun");
  for (const char* word : {"--mpi=pmix", "--ntasks=12", "--nodes=3", "--cpus-per-task=6",
                           "--gpu-bind=none", "--kill-on-bad-exit=1"}) {
    EXPECT_THAT(plan.command, Contains(word));
  }
  EXPECT_THAT(shell_line(plan),
              testing::StartsWith("OMP_NUM_THREADS=6 CUDA_DEVICE_ORDER=PCI_BUS_ID srun "));
}

TEST(LaunchPlanTest, AnAllocationOfSomeCoresGivesNoMoreThreads) {
  LaunchRequest request = request_for(Build::kCpu);
  request.starter = Starter::kSrun;
  request.num_ranks = 1;
  EXPECT_EQ(plan_launch(machine_with(8, 0), request).threads_per_rank, 8);
  request.cpus_on_node = 2;
  EXPECT_EQ(plan_launch(machine_with(8, 0), request).threads_per_rank, 2);
  request.cpus_per_task = 1;
  EXPECT_EQ(plan_launch(machine_with(8, 0), request).threads_per_rank, 1);
}

TEST(RankEnvironmentTest, AnAllowListKeepsSecretsFromRanks) {
  const char* const environment[] = {"PATH=/bin",
                                     "AWS_SECRET_ACCESS_KEY=x",
                                     "NCCL_DEBUG=INFO",
                                     "HF_TOKEN=y",
                                     "OMP_NUM_THREADS=2",
                                     "SLURM_JOB_ID=7",
                                     "PATHOLOGY=z",
                                     "MY_SETTING=1",
                                     nullptr};
  const auto passed = filter_environment(environment, {"MY_SETTING"});
  EXPECT_THAT(passed, ElementsAre("PATH=/bin", "NCCL_DEBUG=INFO", "OMP_NUM_THREADS=2",
                                  "SLURM_JOB_ID=7", "MY_SETTING=1"));
  // What belongs to this host or to the starter stays here.
  EXPECT_THAT(names_for_hosts(passed, {"MY_SETTING"}),
              ElementsAre("MY_SETTING", "NCCL_DEBUG", "OMP_NUM_THREADS"));
}

class HostfileTest : public testing::Test {
 protected:
  HostfileTest()
      : file_(std::filesystem::temp_directory_path() /
              ("trireme_hosts_" + std::to_string(getpid()))) {}
  ~HostfileTest() override { std::filesystem::remove(file_); }
  void write(const std::string& text) { std::ofstream(file_) << text; }
  std::filesystem::path file_;
};

TEST_F(HostfileTest, ReadsSlotsCommentsAndRepeatedHosts) {
  write("# nodes\nnode1 slots=4 max_slots=8\n\nnode2:2  # slow\nnode3\nnode3\n");
  const auto hosts = read_hostfile(file_);
  ASSERT_EQ(hosts.size(), 3U);
  EXPECT_EQ(hosts[0].num_ranks, 4);
  EXPECT_EQ(hosts[1].num_ranks, 2);
  EXPECT_EQ(hosts[2].host, "node3");
  EXPECT_EQ(hosts[2].num_ranks, 2);
}

TEST_F(HostfileTest, RefusesWhatIsNotOneNamingTheLine) {
  for (const char* text : {"", "# none\n", "a\nb slots=x\n", "a\n-b\n", "a\nb 4\n"}) {
    write(text);
    try {
      static_cast<void>(read_hostfile(file_));
      ADD_FAILURE() << text;
    } catch (const UsageError& error) {
      if (text[0] == 'a') {
        EXPECT_THAT(error.what(), HasSubstr("line 2"));
      }
    }
  }
}

TEST(HostsTest, RefusesWhatIsNotAHostList) {
  for (const char* text :
       {"", "a:", "a:0", "a:x", ":4", "a:4,,b:4", "a:4,", "-x:2", "a b:2", "a:-1"}) {
    EXPECT_THROW(parse_hosts(text), UsageError) << text;
  }
  const auto hosts = parse_hosts("n1.example:4,n2");
  ASSERT_EQ(hosts.size(), 2U);
  EXPECT_EQ(hosts[0].host, "n1.example");
  EXPECT_EQ(hosts[0].num_ranks, 4);
  EXPECT_EQ(hosts[1].num_ranks, 0);
}

TEST(ShellTest, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(shell_quoted("configs/demo.toml"), "configs/demo.toml");
  EXPECT_EQ(shell_quoted("a b"), "'a b'");
  EXPECT_EQ(shell_quoted("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_quoted(""), "''");
  EXPECT_EQ(shell_quoted("data.train=[\"$x\"]"), "'data.train=[\"$x\"]'");
}

}  // namespace
}  // namespace trireme
