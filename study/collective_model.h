#pragma once
#include <algorithm>
#include <span>
#include <string_view>

#include "study/machine.h"

namespace trireme {

// kExchange: each rank sends every other a slice of its own (all-to-all).
enum class Collective { kAllReduce, kReduceScatter, kAllGather, kExchange };

// The machines that take part.
struct Fabric {
  GpuGeneration generation = GpuGeneration::kHopper;
  int num_ranks = 1;
  int ranks_per_node = 8;  // Those behind one switch; the last node may have fewer.
  double links_gbps = 0.0;
  bool has_nvls = false;
  double nic_gbps = 0.0;             // A rank.
  double latency_scale = 1.0;        // Of a network hop,
  double links_latency_scale = 1.0;  // and of every other latency.
  int cores_per_node = 0;            // That ranks share; 0: none are shared.

  [[nodiscard]] int num_nodes() const { return (num_ranks + ranks_per_node - 1) / ranks_per_node; }
  // Ranks that take turns on a core; 1 where none have to.
  [[nodiscard]] double ranks_per_core() const {
    const double in_node = std::min(num_ranks, ranks_per_node);
    return cores_per_node > 0 ? std::max(1.0, in_node / cores_per_node) : 1.0;
  }
  // Whether some core (or the GPU's network engine) is free to communicate during computation.
  [[nodiscard]] bool can_overlap() const {
    return cores_per_node == 0 || std::min(num_ranks, ranks_per_node) < cores_per_node;
  }
};

// Of `gpu`'s nodes; num_ranks is 1.
[[nodiscard]] Fabric fabric_of(const GpuPreset& gpu);

// How NCCL would do it. On CPU ranks: the one way of the shared-memory or MPI back end.
enum class Algorithm { kNone, kRing, kTree, kNvls, kShared, kExchange };
enum class Protocol { kLl, kLl128, kSimple };
[[nodiscard]] std::string_view algorithm_name(Algorithm algorithm);
[[nodiscard]] std::string_view protocol_name(Protocol protocol);

struct CollectiveTime {
  double seconds = 0.0;
  double latency_seconds = 0.0;  // The part that does not depend on the size.
  Algorithm algorithm = Algorithm::kNone;
  Protocol protocol = Protocol::kSimple;
};

// Time of one collective on `bytes` a rank: the fastest of ring, tree and in-switch reduction under
// NCCL's three protocols, t = latency + bytes / bandwidth, with the constants of NCCL's tuning.cc
// (hop latencies by link kind, bandwidth factors by protocol). Of an exchange NCCL has no model:
// one hop's latency, then what stays in the node over its links while the rest leaves by the rank's
// own NIC. 0 for one rank.
[[nodiscard]] CollectiveTime collective_time(const Fabric& fabric, Collective kind, double bytes);

// 2 (P - 1) / P x bytes / t in GB/s, as nccl-tests prints it.
[[nodiscard]] double all_reduce_bus_gbps(const Fabric& fabric, double bytes);

// A measured all-reduce.
struct MeasuredAllReduce {
  double bytes = 0.0;
  double bus_gbps = 0.0;
  int num_ranks = 0;  // 0: as many as the fabric's.
};
// `fabric` with latencies and bandwidths that fit the measurements best (least squares of log
// bandwidth; no bandwidth beyond the fabric's): those of the links from measurements on one node,
// then those of the network from the others. REQUIRES: of either kind none, or two different sizes.
[[nodiscard]] Fabric calibrate_fabric(Fabric fabric, std::span<const MeasuredAllReduce> measured);
}  // namespace trireme
