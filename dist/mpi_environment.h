#pragma once
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/tracer.h"
#include "dist/communicator.h"

namespace trireme {

// Initialised MPI, and the control channel between ranks. The first local of a verb that runs as a
// rank, so it dies last; its destructor finalises MPI (after an error that all ranks agreed on
// too).
//
// Control traffic is host memory only, blocking and collective, on a communicator of its own, so it
// does not mix with the traffic of a Communicator. Every wait has a deadline.
class MpiEnvironment {
 public:
  // Throws UsageError where the environment announces more processes than the MPI world has (on the
  // first of them; the others throw PeerFailedError).
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  [[nodiscard]] int rank() const noexcept;
  [[nodiscard]] int world_size() const noexcept;
  [[nodiscard]] int local_rank() const noexcept;  // From a shared-memory split.
  [[nodiscard]] int local_size() const noexcept;  // Ranks on this node.
  [[nodiscard]] int num_nodes() const noexcept;
  [[nodiscard]] std::string host_name() const;

  // Deadline of a control wait; default 600 s. TRIREME_TIMEOUT_SECONDS in the environment overrules
  // this and CommunicatorOptions.
  void set_timeout_seconds(double seconds);

  void barrier();
  // Element-wise maximum over ranks. Collective.
  void all_reduce_max(std::span<int64_t> values);
  void all_reduce_sum(std::span<double> values);
  [[nodiscard]] std::vector<std::string> gather_strings(const std::string& mine);  // On all ranks.
  void broadcast_string(std::string& value, int root = 0);
  void broadcast_bytes(std::span<std::byte> bytes, int root = 0);

  // Runs `work` on every rank and agrees on the outcome: if any rank threw, all throw. The rank
  // with the largest exit code (lowest rank on a tie) throws its own error, with the rank named in
  // the message when only some ranks failed; the others throw PeerFailedError with the same code,
  // of which main() prints nothing. Collective; `work` may not call collectives unless all ranks
  // reach them. Set-up work goes through here, so that no rank is left waiting.
  void run_on_all_ranks(const std::function<void()>& work);

  // Ends every rank at once with `code`; for errors between collectives. Does not return.
  [[noreturn]] void abort(ExitCode code) noexcept;

  struct Impl;
  [[nodiscard]] Impl& impl() noexcept { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// The frame of a verb that runs as a rank: runs `body` in an MpiEnvironment and returns its code.
// An error that all ranks have (agreed in run_on_all_ranks(), or thrown by each within a few
// seconds) is on one rank itself and on the others a PeerFailedError: `report` turns it into the
// code; without it the error is thrown on, after MPI was finalised. An error of some ranks only is
// logged and ends all ranks with its code. Ranks end together, when all have returned or reported.
int run_as_rank(const std::function<int(MpiEnvironment&)>& body,
                const std::function<int(std::exception_ptr)>& report = {});

// Another rank's error, already printed there.
class PeerFailedError : public Error {
 public:
  explicit PeerFailedError(ExitCode code) : Error(code, "another rank failed") {}
};

enum class Backend { kAuto, kNccl, kShm, kMpi };

struct CommunicatorOptions {
  Backend backend = Backend::kAuto;
  double timeout_seconds = 600.0;  // Deadline of a wait.
  int device = -1;                 // CUDA device of this rank; -1: CPU.
  // The stream on which the caller's kernels run (a cudaStream_t), asked at each collective.
  std::function<void*()> compute_stream = {};
  TraceTrack trace = {};  // Of the thread that drives collectives, where there is one.
};

// Collective. kAuto: device >= 0 -> nccl; one rank -> local; all ranks on one node -> shm where its
// space suffices, else mpi. An impossible choice is a UsageError.
[[nodiscard]] std::unique_ptr<Communicator> make_communicator(MpiEnvironment& mpi,
                                                              const CommunicatorOptions& options);
}  // namespace trireme
