#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/statistics.h"

namespace trireme::bench {

enum class Unit { kSeconds, kPerSecond };  // Of display; samples are seconds per operation.

// Something to compare with: another case of the worker, one of LibTorch's own in a worker that
// leaves LibTorch's memory as it is by default (launcher/main.cc asks for huge pages), or one of
// the Python peer, as it is by default as well.
struct Peer {
  enum class Where { kWorker, kPlainWorker, kPython };
  std::string label;
  Where where = Where::kPython;
  std::string name;
  double target = 0.0;  // The most that our time may be of its time; 0: none.
};

struct Comparison {
  std::string group;  // What the command line chooses: "step", "all_reduce", …
  std::string title;
  std::string name;  // Of the worker's case.
  std::vector<Peer> peers;
  Unit unit = Unit::kSeconds;
  double target_seconds = 0.0;  // An absolute one; 0: none.
};
// Those that this number of ranks can make: parallel.shards needs a power of two.
[[nodiscard]] std::vector<Comparison> all_comparisons(int num_ranks);

struct PeerResult {
  Peer peer;
  Interval seconds;
  Interval ratio;  // Ours / its, round by round.
};
struct Result {
  Comparison comparison;
  Interval ours;
  std::vector<PeerResult> peers;
};

using Environment = std::vector<std::pair<std::string, std::string>>;  // In addition.

struct SuiteOptions {
  std::vector<std::string> worker;  // Command of the workers, under mpirun.
  std::vector<std::string> python;  // Command of the Python peers; empty: there are none.
  Environment environment;
  int rounds = 9;
};
// Measures `comparison`: in each round ours and each peer once, in an order that rotates, after one
// that does not count.
class Suite {
 public:
  explicit Suite(SuiteOptions options);
  ~Suite();
  [[nodiscard]] Result measure(const Comparison& comparison);

 private:
  struct Processes;
  [[nodiscard]] const std::vector<std::string>& command_of(Peer::Where where) const;
  [[nodiscard]] Environment environment_of(Peer::Where where) const;
  [[nodiscard]] double sample(Peer::Where where, const std::string& name);
  [[nodiscard]] double start_and_step(Peer::Where where);
  SuiteOptions options_;
  std::unique_ptr<Processes> processes_;
};
}  // namespace trireme::bench
