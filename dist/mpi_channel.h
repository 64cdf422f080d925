#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dist/mpi_handles.h"

namespace trireme {

// One sequence of MPI collectives with deadlines, on an MPI communicator of its own. Internal to
// dist/. One thread at a time waits on a channel; stop() and give_up() may come from another.
//
// While a rank waits it answers the question "which operation are you at?". A rank whose deadline
// passes asks all others, and names in its LostError those that did not answer or are behind.
class MpiChannel {
 public:
  // Collective over `parent`. `hosts`: host names by rank, for messages; may be empty.
  MpiChannel(MPI_Comm parent, double timeout_seconds, std::vector<std::string> hosts = {});
  ~MpiChannel();
  MpiChannel(const MpiChannel&) = delete;
  MpiChannel& operator=(const MpiChannel&) = delete;

  [[nodiscard]] MPI_Comm comm() const noexcept { return comm_.get(); }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }
  void set_timeout(double seconds) noexcept { timeout_seconds_ = seconds; }

  // Drives `request`, a collective that this rank has just started, to its end. `what` names it.
  void wait(MPI_Request& request, std::string_view what);
  // Likewise, but false when `seconds` pass first; only abort may follow then.
  [[nodiscard]] bool wait_for(MPI_Request& request, double seconds);

  // Blocking conveniences for control traffic. Collective.
  void broadcast(void* data, size_t num_bytes, int root, std::string_view what);
  void max(std::span<int64_t> values, std::string_view what);

  void stop() noexcept { stopped_.store(true); }  // A wait in progress throws.
  void give_up() noexcept;  // Makes the others' waits throw, naming this rank. Not collective.

 private:
  struct Sent;
  [[nodiscard]] std::string name_of(int rank) const;
  [[nodiscard]] std::string describe_missing(std::string_view what, double waited_seconds);
  void answer_questions();
  void send(int destination, int tag);

  UniqueComm comm_;
  int rank_ = 0;
  int size_ = 1;
  double timeout_seconds_;
  std::vector<std::string> hosts_;
  int64_t sequence_ = 0;  // Operations begun; equal on all ranks that wait in the same one.
  bool in_flight_ = false;
  std::atomic<bool> stopped_{false};
  std::vector<std::unique_ptr<Sent>> sent_;
};
}  // namespace trireme
