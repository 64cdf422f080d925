#include "launcher/topology.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"
#include "launcher/child_process.h"
#include "launcher/slurm_script.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
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

TEST(LaunchPlanTest, AnAllocationGetsSrun) {
  LaunchRequest request = request_for(Build::kCuda);
  request.starter = Starter::kSrun;
  request.num_nodes = 3;
  const LaunchPlan plan = plan_launch(machine_with(32, 4), request);
  EXPECT_EQ(plan.command.front(), "srun");
  EXPECT_THAT(plan.command, Contains("--mpi=pmix"));
  EXPECT_THAT(plan.command, Contains("--ntasks=12"));
  EXPECT_THAT(shell_line(plan),
              testing::StartsWith("OMP_NUM_THREADS=8 CUDA_DEVICE_ORDER=PCI_BUS_ID srun "));
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

// A driver's files as they would lie under "/".
class GpuFilesTest : public testing::Test {
 protected:
  GpuFilesTest() : root_(fs::temp_directory_path() / ("trireme_gpus_" + std::to_string(getpid()))) {
    fs::create_directories(root_ / "dev");
  }
  ~GpuFilesTest() override { fs::remove_all(root_); }
  void add(const std::string& pci, int numa_node) {
    fs::create_directories(root_ / "proc/driver/nvidia/gpus" / pci);
    const fs::path device = root_ / "sys/bus/pci/devices" / pci;
    fs::create_directories(device);
    std::ofstream(device / "numa_node") << numa_node << '\n';
    std::ofstream(root_ / ("dev/nvidia" + std::to_string(num_nodes_++))) << "";
  }
  fs::path root_;
  int num_nodes_ = 0;
};

TEST_F(GpuFilesTest, NoDriverMeansNoGpu) { EXPECT_TRUE(detect_gpus(root_, nullptr).empty()); }

TEST_F(GpuFilesTest, GpusComeInTheOrderOfTheirAddresses) {
  add("0000:81:00.0", 1);
  add("0000:3b:00.0", 0);
  const auto gpus = detect_gpus(root_, nullptr);
  ASSERT_EQ(gpus.size(), 2U);
  EXPECT_EQ(gpus[0].pci_address, "0000:3b:00.0");
  EXPECT_EQ(gpus[0].numa_node, 0);
  EXPECT_EQ(gpus[1].numa_node, 1);
}

TEST_F(GpuFilesTest, VisibleDevicesChooseAndHide) {
  add("0000:3b:00.0", 0);
  add("0000:81:00.0", 1);
  EXPECT_TRUE(detect_gpus(root_, "").empty());
  EXPECT_TRUE(detect_gpus(root_, "-1").empty());
  EXPECT_EQ(detect_gpus(root_, "1").at(0).numa_node, 1);
  EXPECT_EQ(detect_gpus(root_, "1,0").size(), 2U);
  EXPECT_EQ(detect_gpus(root_, "0,7,1").size(), 1U);
  EXPECT_EQ(detect_gpus(root_, "GPU-8932f937").size(), 1U);
}

TEST_F(GpuFilesTest, AContainerSeesOnlyItsOwnDeviceNodes) {
  add("0000:3b:00.0", 0);
  add("0000:81:00.0", 1);
  fs::remove(root_ / "dev/nvidia1");
  EXPECT_EQ(detect_gpus(root_, nullptr).size(), 1U);
}

TEST_F(GpuFilesTest, AQuotaLimitsTheCores) {
  fs::create_directories(root_ / "sys/fs/cgroup");
  std::ofstream(root_ / "sys/fs/cgroup/cpu.max") << "150000 100000\n";
  EXPECT_EQ(detect_machine(root_).num_cores, 1);
  std::ofstream(root_ / "sys/fs/cgroup/cpu.max") << "max 100000\n";
  EXPECT_GE(detect_machine(root_).num_cores, 1);
}

TEST(SlurmScriptTest, HoldsWhatTheJobNeeds) {
  SlurmRequest request;
  request.job_name = "my run";
  request.num_nodes = 2;
  request.gpus_per_node = 8;
  request.time = "12:00:00";
  request.program = "/opt/my programs/trireme";
  request.arguments = {"train", "a.toml"};
  const std::string script = slurm_script(request);
  EXPECT_THAT(script, testing::StartsWith("#!/bin/bash\n#SBATCH --job-name=my-run\n"));
  for (const char* line :
       {"#SBATCH --nodes=2\n", "#SBATCH --ntasks=16\n", "#SBATCH --ntasks-per-node=8\n",
        "#SBATCH --gpus-per-node=8\n", "#SBATCH --time=12:00:00\n", "#SBATCH --requeue\n",
        "#SBATCH --signal=B:USR1@60\n", "#SBATCH --open-mode=append\n", "--mpi=pmix",
        "'/opt/my programs/trireme' train a.toml &\n", "-eq 75"}) {
    EXPECT_THAT(script, HasSubstr(line));
  }
}

TEST(SlurmScriptTest, RefusesContradictions) {
  SlurmRequest request;
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);  // How many ranks?
  request.num_nodes = 4;
  request.num_ranks = 2;
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
  request.num_ranks = 4;
  EXPECT_NO_THROW(static_cast<void>(slurm_script(request)));
  request.time = "soon";
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
  request.time = "10";
  request.partition = "a b";
  EXPECT_THROW(static_cast<void>(slurm_script(request)), UsageError);
}

LaunchPlan shell_plan(const std::string& script) {
  LaunchPlan plan;
  plan.command = {"bash", "-c", script};
  return plan;
}

TEST(ChildTest, ItsCodePasses) {
  for (const int code : {0, 2, 75}) {
    const ChildOutcome outcome = run_child(shell_plan("exit " + std::to_string(code)));
    EXPECT_EQ(static_cast<int>(interpret(outcome, "mpirun").code), code);
  }
}

TEST(ChildTest, AMissingProgramIsAUsageErrorNamingIt) {
  LaunchPlan plan;
  plan.command = {"no-such-mpirun"};
  try {
    static_cast<void>(run_child(plan));
    FAIL() << "started";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no-such-mpirun"));
  }
}

TEST(ChildTest, SigtermReachesItAsUsr1) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome =
      run_child(shell_plan("trap 'exit 75' USR1; trap 'exit 9' TERM INT; kill -TERM " + parent +
                           "; while :; do sleep 0.01; done"));
  EXPECT_TRUE(outcome.was_stopped);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kStopped);
}

TEST(ChildTest, ASecondInterruptStopsAtOnce) {
  const std::string parent = std::to_string(getpid());
  const ChildOutcome outcome =
      run_child(shell_plan("trap 'kill -INT " + parent + "' USR1; trap 'exit 1' INT; kill -INT " +
                           parent + "; while :; do sleep 0.01; done"));
  EXPECT_TRUE(outcome.was_interrupted);
  EXPECT_EQ(interpret(outcome, "mpirun").code, ExitCode::kInterrupted);
}

TEST(ChildTest, ASignalThatEndsARankIsALostRank) {
  const LaunchResult result = interpret({.exit_code = 128 + SIGKILL, .signal = 0}, "mpirun");
  EXPECT_EQ(result.code, ExitCode::kLost);
  EXPECT_THAT(result.message, HasSubstr("SIGKILL"));
  EXPECT_EQ(
      interpret({.exit_code = 128 + SIGUSR1, .signal = 0, .was_stopped = true}, "mpirun").code,
      ExitCode::kStopped);
  EXPECT_EQ(interpret({.exit_code = 130, .signal = 0}, "mpirun").code, ExitCode::kInterrupted);
}
}  // namespace
}  // namespace trireme
