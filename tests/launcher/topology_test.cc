#include "launcher/topology.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"
#include "launcher/launch_plan.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const fs::path kTopologies = TRIREME_TEST_TOPOLOGIES;  // Its README.md tells whence.

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
    std::ofstream(root_ / ("dev/nvidia" + std::to_string(num_gpus_++))) << "";
  }
  // As newer drivers tell it: minors in another order than the addresses.
  void add_with_facts(const std::string& pci, int numa_node, int minor, const std::string& uuid) {
    add(pci, numa_node);
    std::ofstream(root_ / "proc/driver/nvidia/gpus" / pci / "information")
        << "Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t " << uuid << "\nDevice Minor: \t "
        << minor << '\n';
  }
  void add_mig_instance(int minor, int gpu_instance) {
    fs::create_directories(root_ / "proc/driver/nvidia/capabilities" /
                           ("gpu" + std::to_string(minor)) / "mig" /
                           ("gi" + std::to_string(gpu_instance)) / "ci0");
  }
  // Eight GPUs, four a socket, as in a server with two sockets.
  void add_eight() {
    const char* const addresses[] = {"07", "0b", "48", "4c", "88", "8b", "c8", "cb"};
    for (int i = 0; i < 8; ++i) {
      add_with_facts("0000:" + std::string(addresses[i]) + ":00.0", i < 4 ? 0 : 1, i,
                     "GPU-" + std::string(8, static_cast<char>('a' + i)));
    }
  }
  Machine machine(const std::string& topology, const char* visible = nullptr) const {
    return detect_machine({.root = root_,
                           .topology_xml = kTopologies / (topology + ".xml"),
                           .allowed = std::nullopt,
                           .visible_devices = visible});
  }
  fs::path root_;
  int num_gpus_ = 0;
};

std::vector<int> range(int first, int last) {
  std::vector<int> values(static_cast<size_t>(last - first));
  std::iota(values.begin(), values.end(), first);
  return values;
}

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

TEST_F(GpuFilesTest, ADeviceNodeBelongsToTheGpuOfItsMinor) {
  add_with_facts("0000:3b:00.0", 0, 1, "GPU-aaaa");
  add_with_facts("0000:81:00.0", 1, 0, "GPU-bbbb");
  fs::remove(root_ / "dev/nvidia1");
  const auto gpus = detect_gpus(root_, nullptr);
  ASSERT_THAT(gpus, SizeIs(1));
  EXPECT_EQ(gpus[0].pci_address, "0000:81:00.0");
  EXPECT_EQ(gpus[0].model, "NVIDIA H100 80GB HBM3");
}

TEST_F(GpuFilesTest, UuidsNameGpusByUnambiguousBeginnings) {
  add_eight();
  const auto gpus = detect_gpus(root_, "GPU-hhhh,GPU-aaaaaaaa");
  ASSERT_THAT(gpus, SizeIs(2));
  EXPECT_EQ(gpus[0].numa_node, 1);
  EXPECT_EQ(gpus[1].pci_address, "0000:07:00.0");
  EXPECT_THAT(detect_gpus(root_, "GPU-"), IsEmpty());
  EXPECT_THAT(detect_gpus(root_, "GPU-aaaa,GPU-zzzz,GPU-bbbb"), SizeIs(1));
}

TEST_F(GpuFilesTest, MigLeavesOneRank) {
  add_with_facts("0000:3b:00.0", 0, 0, "GPU-aaaa");
  add_with_facts("0000:81:00.0", 1, 1, "GPU-bbbb");
  add_mig_instance(1, 1);
  add_mig_instance(1, 2);
  EXPECT_THAT(detect_gpus(root_, nullptr), SizeIs(1));
  EXPECT_THAT(detect_gpus(root_, "MIG-1,MIG-2"), SizeIs(1));
  EXPECT_EQ(detect_gpus(root_, "MIG-2").at(0).numa_node, 1);
  EXPECT_EQ(detect_gpus(root_, "0").at(0).num_mig_instances, 0);  // The whole one.
  LaunchRequest request;
  request.build = Build::kCuda;
  const Machine divided = machine("two_sockets");
  EXPECT_EQ(plan_launch(divided, request).num_ranks, 1);
  EXPECT_THAT(plan_launch(divided, request).explanation, HasSubstr("MIG"));
  request.num_ranks = 2;
  EXPECT_THROW(static_cast<void>(plan_launch(divided, request)), UsageError);
}

TEST_F(GpuFilesTest, AQuotaLimitsTheCores) {
  fs::create_directories(root_ / "sys/fs/cgroup");
  std::ofstream(root_ / "sys/fs/cgroup/cpu.max") << "350000 100000\n";
  EXPECT_EQ(machine("two_sockets").num_cores, 3);
  std::ofstream(root_ / "sys/fs/cgroup/cpu.max") << "max 100000\n";
  EXPECT_EQ(machine("two_sockets").num_cores, 32);
}

TEST_F(GpuFilesTest, TopologiesAreRead) {
  const Machine sockets = machine("two_sockets");
  EXPECT_EQ(sockets.num_cores, 32);
  EXPECT_EQ(sockets.num_processing_units, 64);
  EXPECT_EQ(sockets.num_numa_nodes(), 2);
  EXPECT_THAT(sockets.cores[0].cpus, ElementsAre(0, 1));
  EXPECT_EQ(sockets.cores[16].numa_node, 1);
  EXPECT_EQ(machine("no_smt_four_nodes").num_numa_nodes(), 4);
  EXPECT_EQ(machine("virtual_machine").num_cores, 2);
  EXPECT_THROW(static_cast<void>(machine("missing")), InputError);
}

TEST_F(GpuFilesTest, TheAffinityMaskLimitsTheCores) {
  const Machine confined = detect_machine({.root = root_,
                                           .topology_xml = kTopologies / "two_sockets.xml",
                                           .allowed = CpuList{0, 1, 33},
                                           .visible_devices = nullptr});
  ASSERT_THAT(confined.cores, SizeIs(2));
  EXPECT_THAT(confined.cores[1].cpus, ElementsAre(33));
  EXPECT_EQ(confined.num_processing_units, 3);
}

TEST_F(GpuFilesTest, OneGpuGetsTheCoresOfItsSocket) {
  add("0000:81:00.0", 1);
  const auto placements = place_ranks(machine("two_sockets"), 1);
  ASSERT_THAT(placements, SizeIs(1));
  EXPECT_EQ(placements[0].cpus, range(32, 64));
  EXPECT_EQ(placements[0].numa_node, 1);
}

TEST_F(GpuFilesTest, EightGpusShareTheCoresOfTheirSockets) {
  add_eight();
  const Machine server = machine("two_sockets");
  const auto placements = place_ranks(server, 8);
  ASSERT_THAT(placements, SizeIs(8));
  EXPECT_EQ(placements[0].cpus, range(0, 8));
  EXPECT_THAT(placements[0].compute, ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(placements[0].helpers, ElementsAre(1, 3, 5, 7));  // Second hyper-threads.
  EXPECT_EQ(placements[3].cpus, range(24, 32));
  EXPECT_EQ(placements[4].cpus, range(32, 40));
  for (size_t rank = 0; rank < 8; ++rank) EXPECT_EQ(placements[rank].numa_node, rank < 4 ? 0 : 1);
  LaunchRequest request;
  request.build = Build::kCuda;
  EXPECT_EQ(plan_launch(server, request).num_ranks, 8);
  EXPECT_EQ(plan_launch(server, request).threads_per_rank, 4);
}

TEST_F(GpuFilesTest, HiddenGpusLeaveTheirCoresToTheOthers) {
  add_eight();
  const Machine server = machine("two_sockets", "7,0,1");  // Ranks follow that order.
  ASSERT_THAT(server.gpus, SizeIs(3));
  const auto placements = place_ranks(server, 3);
  EXPECT_EQ(placements[0].cpus, range(32, 64));
  EXPECT_EQ(placements[1].cpus, range(0, 16));
  EXPECT_EQ(placements[2].cpus, range(16, 32));
}

TEST_F(GpuFilesTest, FourGpusWithoutHyperThreadsKeepOneCoreForTheDevice) {
  for (int i = 0; i < 4; ++i) add("0000:0" + std::to_string(i) + ":00.0", i);
  const auto placements = place_ranks(machine("no_smt_four_nodes"), 4);
  EXPECT_EQ(placements[2].cpus, range(16, 24));
  EXPECT_EQ(placements[2].helpers, range(17, 24));
  EXPECT_EQ(placements[2].numa_node, 2);
}

// Recorded: sockets that take turns in numbering, so that neighbours are two apart.
TEST_F(GpuFilesTest, AProLiantWithThreeGpus) {
  add("0000:06:00.0", 0);
  add("0000:14:00.0", 1);
  add("0000:11:00.0", 1);
  const Machine server = machine("hwloc/24em64t-2n6c2t-pci");
  EXPECT_EQ(server.num_cores, 12);
  EXPECT_EQ(server.num_processing_units, 24);
  const auto placements = place_ranks(server, 3);
  EXPECT_THAT(placements[0].compute, ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(placements[0].helpers, ElementsAre(12, 14, 16, 18, 20, 22));
  EXPECT_THAT(placements[1].cpus, ElementsAre(1, 3, 5, 13, 15, 17));
  EXPECT_THAT(placements[2].cpus, ElementsAre(7, 9, 11, 19, 21, 23));
  EXPECT_EQ(placements[2].numa_node, 1);
}

TEST_F(GpuFilesTest, ASupermicroWithThreeGpus) {
  add("0000:03:00.0", 0);
  add("0000:83:00.0", 1);
  add("0000:84:00.0", 1);
  const Machine server = machine("hwloc/32em64t-2n8c2t-pci-wholeio");
  const auto placements = place_ranks(server, 3);
  EXPECT_EQ(placements[0].compute, range(0, 8));
  EXPECT_EQ(placements[0].helpers, range(16, 24));
  EXPECT_THAT(placements[1].cpus, ElementsAre(8, 9, 10, 11, 24, 25, 26, 27));
  EXPECT_THAT(placements[2].cpus, ElementsAre(12, 13, 14, 15, 28, 29, 30, 31));
}

// Processing units are numbered by eight to a core, of which two are on.
TEST_F(GpuFilesTest, APower8WithFourGpus) {
  for (const char* address : {"0002:01:00.0", "0003:01:00.0"}) add(address, 0);
  for (const char* address : {"000a:01:00.0", "000b:01:00.0"}) add(address, 1);
  const Machine server = machine("hwloc/power8gpudistances");
  EXPECT_EQ(server.num_cores, 8);
  const auto placements = place_ranks(server, 4);
  EXPECT_THAT(placements[0].compute, ElementsAre(0, 8));
  EXPECT_THAT(placements[0].helpers, ElementsAre(1, 9));
  EXPECT_THAT(placements[2].cpus, ElementsAre(80, 81, 88, 89));
  EXPECT_THAT(placements[3].cpus, ElementsAre(96, 97, 104, 105));
  EXPECT_EQ(placements[3].numa_node, 1);
  LaunchRequest request;
  request.build = Build::kCuda;
  EXPECT_EQ(plan_launch(server, request).threads_per_rank, 2);
}

TEST_F(GpuFilesTest, GpusOfUnknownPlaceShareAllCores) {
  add("0000:3b:00.0", -1);
  add("0000:81:00.0", -1);
  const auto placements = place_ranks(machine("workstation"), 2);
  EXPECT_EQ(placements[0].cpus, range(0, 8));
  EXPECT_EQ(placements[1].cpus, range(8, 16));
}

TEST_F(GpuFilesTest, RanksOnCpusFillTheCoresWithoutOverlap) {
  for (const char* topology : {"two_sockets", "workstation", "no_smt_four_nodes"}) {
    const Machine here = machine(topology);
    for (const int ranks : {1, 2, 3, 4, 8}) {
      std::vector<int> all;
      for (const auto& placement : place_ranks(here, ranks)) {
        EXPECT_EQ(placement.compute.size(), here.cores.size() / static_cast<size_t>(ranks));
        all.insert(all.end(), placement.cpus.begin(), placement.cpus.end());
      }
      std::ranges::sort(all);
      EXPECT_TRUE(std::ranges::adjacent_find(all) == all.end()) << topology << " " << ranks;
    }
  }
  EXPECT_EQ(place_ranks(machine("two_sockets"), 2)[1].numa_node, 1);
  EXPECT_EQ(place_ranks(machine("two_sockets"), 1)[0].numa_node, -1);
}

TEST_F(GpuFilesTest, MoreRanksThanCoresAreNotConfined) {
  for (const auto& placement : place_ranks(machine("virtual_machine"), 3))
    EXPECT_THAT(placement.cpus, IsEmpty());
}

TEST(ThisMachineTest, IsSeen) {
  const Machine here = detect_machine();
  EXPECT_GE(here.num_cores, 1);
  EXPECT_FALSE(here.cores.empty());
  EXPECT_EQ(place_ranks(here, 1)[0].cpus, current_cpus());
}
}  // namespace
}  // namespace trireme
