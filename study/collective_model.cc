#include "study/collective_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

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

double ranks_in_node(const Fabric& fabric) {
  return std::min(fabric.ranks_per_node, fabric.num_ranks);
}

// Bus bandwidth of rings: within a node the links', between nodes also that of all its NICs.
double ring_bus_gbps(const Fabric& fabric) {
  if (fabric.num_nodes() == 1) return fabric.links_gbps;
  return std::min(fabric.links_gbps, fabric.nic_gbps * ranks_in_node(fabric));
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

double latency(const Fabric& fabric, double links_us, double network_us) {
  return (links_us * fabric.links_latency_scale + network_us * fabric.latency_scale) * kMicro;
}

CollectiveTime ring_time(const Fabric& fabric, const ProtocolConstants& constants, double passes,
                         double bytes) {
  const double ranks = fabric.num_ranks;
  const double nodes = fabric.num_nodes();
  double links_us = passes * (ranks - nodes) * constants.link_ring_us;
  double network_us = passes * (nodes - 1.0) * constants.network_ring_us;
  if (nodes > 1.0 && constants.protocol == Protocol::kSimple) {
    links_us *= kLargeSimpleFactor;
    network_us *= kLargeSimpleFactor;
  }
  const double bus = protocol_bus_gbps(fabric, Algorithm::kRing, constants.protocol);
  CollectiveTime time{.algorithm = Algorithm::kRing, .protocol = constants.protocol};
  time.latency_seconds = latency(fabric, constants.base_ring_us + links_us, network_us);
  time.seconds = time.latency_seconds + passes * (ranks - 1.0) / ranks * bytes / (bus * kGiga);
  return time;
}

CollectiveTime tree_time(const Fabric& fabric, const ProtocolConstants& constants, double bytes) {
  const double links_us = 2.0 * (ranks_in_node(fabric) - 1.0) * constants.link_tree_us;
  const double network_us =
      2.0 * std::log2(static_cast<double>(fabric.num_nodes())) * constants.network_tree_us;
  const double bus = protocol_bus_gbps(fabric, Algorithm::kTree, constants.protocol);
  CollectiveTime time{.algorithm = Algorithm::kTree, .protocol = constants.protocol};
  time.latency_seconds = latency(fabric, constants.base_tree_us + links_us, network_us);
  time.seconds = time.latency_seconds + 2.0 * bytes / (bus * kGiga);
  return time;
}

// Within one node the switch adds: each GPU sends and receives every byte once.
CollectiveTime nvls_time(const Fabric& fabric, double bytes) {
  const double efficiency = fabric.generation == GpuGeneration::kBlackwell ? 0.74 : 0.85;
  CollectiveTime time{.algorithm = Algorithm::kNvls};
  time.latency_seconds = latency(fabric, kNvlsBaseUs, 0.0);
  time.seconds = time.latency_seconds + bytes / (efficiency * fabric.links_gbps * kGiga);
  return time;
}

// Links and NICs work side by side; each rank's slices for other nodes leave by its own NIC.
double exchange_bytes_seconds(const Fabric& fabric, double bytes) {
  const double ranks = fabric.num_ranks;
  const double inside = (ranks_in_node(fabric) - 1.0) / ranks * bytes / fabric.links_gbps;
  const double outside = (ranks - ranks_in_node(fabric)) / ranks * bytes / fabric.nic_gbps;
  return std::max(inside, outside) / kGiga;
}

CollectiveTime exchange_time(const Fabric& fabric, double bytes) {
  const ProtocolConstants& simple = kProtocols.back();
  CollectiveTime time{.algorithm = Algorithm::kExchange};
  time.latency_seconds = fabric.num_nodes() == 1
                             ? latency(fabric, simple.base_ring_us + simple.link_ring_us, 0.0)
                             : latency(fabric, simple.base_ring_us, simple.network_ring_us);
  time.seconds = time.latency_seconds + exchange_bytes_seconds(fabric, bytes);
  return time;
}

double passes_of(Collective kind) { return kind == Collective::kAllReduce ? 2.0 : 1.0; }

// Ranks sum straight from each other's memory (one node), or MPI's ring between nodes.
CollectiveTime host_time(const Fabric& fabric, Collective kind, double bytes) {
  const double ranks = fabric.num_ranks;
  CollectiveTime time{.algorithm = Algorithm::kShared};
  const double base_us = kHostBaseUs * std::log2(std::max(2.0, ranks));
  time.latency_seconds =
      fabric.num_nodes() == 1 ? latency(fabric, base_us, 0.0) : latency(fabric, 0.0, base_us);
  const double ring_seconds =
      passes_of(kind) * (ranks - 1.0) / ranks * bytes / (ring_bus_gbps(fabric) * kGiga);
  time.seconds =
      time.latency_seconds +
      (kind == Collective::kExchange ? exchange_bytes_seconds(fabric, bytes) : ring_seconds);
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
  constexpr std::array<std::string_view, 6> kNames = {"none", "ring",   "tree",
                                                      "nvls", "shared", "exchange"};
  return kNames.at(static_cast<size_t>(algorithm));
}

std::string_view protocol_name(Protocol protocol) {
  constexpr std::array<std::string_view, 3> kNames = {"LL", "LL128", "Simple"};
  return kNames.at(static_cast<size_t>(protocol));
}

CollectiveTime collective_time(const Fabric& fabric, Collective kind, double bytes) {
  check(fabric.num_ranks >= 1 && fabric.ranks_per_node >= 1 && bytes >= 0.0, "a fabric");
  if (fabric.num_ranks == 1) return {};
  if (fabric.generation == GpuGeneration::kHost) return host_time(fabric, kind, bytes);
  if (kind == Collective::kExchange) return exchange_time(fabric, bytes);
  CollectiveTime best{.seconds = std::numeric_limits<double>::infinity()};
  const auto consider = [&best](const CollectiveTime& time) {
    if (time.seconds < best.seconds) best = time;
  };
  for (const auto& constants : kProtocols) {
    consider(ring_time(fabric, constants, passes_of(kind), bytes));
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

namespace {
// The two members of `fabric` that fit `measured` best.
Fabric fit_fabric(Fabric fabric, double Fabric::* latency_scale, double Fabric::* bandwidth,
                  std::span<const MeasuredAllReduce> measured) {
  const double most = fabric.*bandwidth;
  const auto loss_of = [&measured](Fabric trial) {
    double loss = 0.0;
    for (const auto& point : measured) {
      trial.num_ranks = point.num_ranks;
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
    bool has_moved = false;
    for (const auto& [slower, wider] :
         std::initializer_list<std::pair<double, double>>{{step, 1},
                                                          {1 / step, 1},
                                                          {1, step},
                                                          {1, 1 / step},
                                                          {step, step},
                                                          {1 / step, 1 / step},
                                                          {step, 1 / step},
                                                          {1 / step, step}}) {
      Fabric trial = fabric;
      trial.*latency_scale *= slower;
      trial.*bandwidth = std::min(trial.*bandwidth * wider, most);
      const double loss = loss_of(trial);
      if (loss >= best) continue;
      best = loss;
      next = trial;
      has_moved = true;
    }
    if (!has_moved) step = std::sqrt(step);
    fabric = next;
  }
  return fabric;
}
}  // namespace

Fabric calibrate_fabric(Fabric fabric, std::span<const MeasuredAllReduce> measured) {
  std::vector<MeasuredAllReduce> on_links;
  std::vector<MeasuredAllReduce> on_network;
  for (MeasuredAllReduce point : measured) {
    if (point.num_ranks == 0) point.num_ranks = fabric.num_ranks;
    (point.num_ranks <= fabric.ranks_per_node ? on_links : on_network).push_back(point);
  }
  if (!on_links.empty()) {
    fabric = fit_fabric(fabric, &Fabric::links_latency_scale, &Fabric::links_gbps, on_links);
  }
  if (!on_network.empty()) {
    fabric = fit_fabric(fabric, &Fabric::latency_scale, &Fabric::nic_gbps, on_network);
  }
  return fabric;
}
}  // namespace trireme
