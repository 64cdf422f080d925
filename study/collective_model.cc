#include "study/collective_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <utility>

#include "core/error.h"

namespace trireme {
namespace {
constexpr double kGiga = 1e9;
constexpr double kMicro = 1e-6;
constexpr double kLargeSimpleFactor = 1.4;  // Ring latency between nodes, Simple, from sm80 on.
constexpr double kNvlsBaseUs = 25.0;
constexpr double kHostBaseUs = 30.0;  // Two wake-ups of a parked rank.
constexpr double kChannels = 16.0;

struct ProtocolConstants {
  Protocol protocol;
  double base_tree_us, base_ring_us;
  double link_tree_us, link_ring_us;
  double network_tree_us, network_ring_us;
};
constexpr std::array<ProtocolConstants, 3> kProtocols = {{
    {Protocol::kLl, 6.8, 6.6, 0.6, 0.6, 5.0, 2.7},
    {Protocol::kLl128, 14.0, 14.0, 1.25, 1.9, 8.5, 4.0},
    {Protocol::kSimple, 8.4, 8.4, 4.0, 3.4, 14.0, 14.0},
}};

// Bus bandwidth of rings: within a node the links', between nodes also that of all its NICs.
double ring_bus_gbps(const Fabric& fabric) {
  if (fabric.num_nodes() == 1) return fabric.links_gbps;
  const double nics = fabric.nic_gbps * std::min(fabric.ranks_per_node, fabric.num_ranks);
  return std::min(fabric.links_gbps, nics);
}

double ll128_cap_gbps(const Fabric& fabric) {
  return kChannels * (fabric.generation == GpuGeneration::kBlackwell ? 40.0 : 36.7);
}

double protocol_bus_gbps(const Fabric& fabric, Algorithm algorithm, Protocol protocol) {
  const double bus = ring_bus_gbps(fabric);
  if (algorithm == Algorithm::kRing) {
    if (protocol == Protocol::kLl) return 0.5 * bus;
    if (protocol == Protocol::kLl128) return std::min(0.92 * bus, ll128_cap_gbps(fabric));
    return bus;
  }
  const double tree = 0.92 * bus;
  if (protocol == Protocol::kLl) return tree / 3.8;
  if (protocol == Protocol::kLl128) return tree * (fabric.num_nodes() == 1 ? 7.0 / 9.0 : 0.9375);
  return tree;
}

CollectiveTime ring_time(const Fabric& fabric, const ProtocolConstants& constants, double passes,
                         double bytes) {
  const double ranks = fabric.num_ranks;
  const double nodes = fabric.num_nodes();
  double hops_us = passes * ((ranks - 1.0) - (nodes - 1.0)) * constants.link_ring_us +
                   passes * (nodes - 1.0) * constants.network_ring_us * fabric.latency_scale;
  if (nodes > 1.0 && constants.protocol == Protocol::kSimple) hops_us *= kLargeSimpleFactor;
  const double bus = protocol_bus_gbps(fabric, Algorithm::kRing, constants.protocol);
  CollectiveTime time{.algorithm = Algorithm::kRing, .protocol = constants.protocol};
  time.latency_seconds = (constants.base_ring_us + hops_us) * kMicro * fabric.alpha_scale;
  time.seconds = time.latency_seconds +
                 passes * (ranks - 1.0) / ranks * bytes / (bus * kGiga * fabric.bandwidth_scale);
  return time;
}

CollectiveTime tree_time(const Fabric& fabric, const ProtocolConstants& constants, double bytes) {
  const double in_node = std::min(fabric.ranks_per_node, fabric.num_ranks);
  const double hops_us = 2.0 * ((in_node - 1.0) * constants.link_tree_us +
                                std::log2(static_cast<double>(fabric.num_nodes())) *
                                    constants.network_tree_us * fabric.latency_scale);
  const double bus = protocol_bus_gbps(fabric, Algorithm::kTree, constants.protocol);
  CollectiveTime time{.algorithm = Algorithm::kTree, .protocol = constants.protocol};
  time.latency_seconds = (constants.base_tree_us + hops_us) * kMicro * fabric.alpha_scale;
  time.seconds = time.latency_seconds + 2.0 * bytes / (bus * kGiga * fabric.bandwidth_scale);
  return time;
}

// Within one node the switch adds: each GPU sends and receives every byte once.
CollectiveTime nvls_time(const Fabric& fabric, double bytes) {
  const double efficiency = fabric.generation == GpuGeneration::kBlackwell ? 0.74 : 0.85;
  CollectiveTime time{.algorithm = Algorithm::kNvls};
  time.latency_seconds = kNvlsBaseUs * kMicro * fabric.alpha_scale;
  time.seconds = time.latency_seconds +
                 bytes / (efficiency * fabric.links_gbps * kGiga * fabric.bandwidth_scale);
  return time;
}

// Ranks sum straight from each other's memory (one node), or MPI's ring between nodes.
CollectiveTime host_time(const Fabric& fabric, double passes, double bytes) {
  const double ranks = fabric.num_ranks;
  CollectiveTime time{.algorithm = Algorithm::kShared};
  time.latency_seconds =
      kHostBaseUs * kMicro * fabric.alpha_scale * std::log2(std::max(2.0, ranks));
  time.seconds =
      time.latency_seconds + passes * (ranks - 1.0) / ranks * bytes /
                                 (ring_bus_gbps(fabric) * kGiga * fabric.bandwidth_scale);
  time.seconds *= fabric.ranks_per_core();
  return time;
}
}  // namespace

Fabric fabric_of(const GpuPreset& gpu) {
  return {.generation = gpu.generation,
          .ranks_per_node = gpu.gpus_per_node,
          .links_gbps = gpu.links_gbps,
          .has_nvls = gpu.has_nvls,
          .nic_gbps = gpu.nic_gbps,
          .cores_per_node = gpu.cores_per_node};
}

std::string_view algorithm_name(Algorithm algorithm) {
  constexpr std::array<std::string_view, 5> kNames = {"none", "ring", "tree", "nvls", "shared"};
  return kNames.at(static_cast<size_t>(algorithm));
}

std::string_view protocol_name(Protocol protocol) {
  constexpr std::array<std::string_view, 3> kNames = {"LL", "LL128", "Simple"};
  return kNames.at(static_cast<size_t>(protocol));
}

CollectiveTime collective_time(const Fabric& fabric, Collective kind, double bytes) {
  check(fabric.num_ranks >= 1 && fabric.ranks_per_node >= 1 && bytes >= 0.0, "a fabric");
  if (fabric.num_ranks == 1) return {};
  const double passes = kind == Collective::kAllReduce ? 2.0 : 1.0;
  if (fabric.generation == GpuGeneration::kHost) return host_time(fabric, passes, bytes);
  CollectiveTime best{.seconds = std::numeric_limits<double>::infinity()};
  const auto consider = [&best](const CollectiveTime& time) {
    if (time.seconds < best.seconds) best = time;
  };
  for (const auto& constants : kProtocols) {
    consider(ring_time(fabric, constants, passes, bytes));
    if (kind == Collective::kAllReduce) consider(tree_time(fabric, constants, bytes));
  }
  if (kind == Collective::kAllReduce && fabric.has_nvls && fabric.num_nodes() == 1) {
    consider(nvls_time(fabric, bytes));
  }
  return best;
}

double all_reduce_bus_gbps(const Fabric& fabric, double bytes) {
  const double ranks = fabric.num_ranks;
  return 2.0 * (ranks - 1.0) / ranks * bytes /
         collective_time(fabric, Collective::kAllReduce, bytes).seconds / kGiga;
}

Fabric calibrate_fabric(Fabric fabric, std::span<const MeasuredAllReduce> measured) {
  check(measured.size() >= 2, "two measurements calibrate a fabric");
  const auto loss_of = [&measured](const Fabric& trial) {
    double loss = 0.0;
    for (const auto& point : measured) {
      const double error = std::log(all_reduce_bus_gbps(trial, point.bytes) / point.bus_gbps);
      loss += error * error;
    }
    return loss;
  };
  // The loss is smooth but for changes of algorithm: a shrinking search in both logarithms.
  double step = 4.0;
  double best = loss_of(fabric);
  while (step > 1.0005) {
    Fabric next = fabric;
    for (const auto& [alpha, bandwidth] :
         std::initializer_list<std::pair<double, double>>{{step, 1},
                                                          {1 / step, 1},
                                                          {1, step},
                                                          {1, 1 / step},
                                                          {step, step},
                                                          {1 / step, 1 / step},
                                                          {step, 1 / step},
                                                          {1 / step, step}}) {
      Fabric trial = fabric;
      trial.alpha_scale *= alpha;
      trial.bandwidth_scale = std::min(trial.bandwidth_scale * bandwidth, 1.0);
      const double loss = loss_of(trial);
      if (loss < best) {
        best = loss;
        next = trial;
      }
    }
    const bool has_moved =
        next.alpha_scale != fabric.alpha_scale || next.bandwidth_scale != fabric.bandwidth_scale;
    if (!has_moved) step = std::sqrt(step);
    fabric = next;
  }
  return fabric;
}
}  // namespace trireme
