#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"
#include "trainer/host_copy.h"

namespace trireme {

// What ranks tell each other once a step, in one small all-reduce on the device. Each entry is
// one rank's number and zeros of the others, or digits of an exact sum, so the result has the same
// bits at any number of ranks and with any back end.
//
// Per step: begin(), fill in, exchange(); copy_to_host(); later read(). Filling in enqueues work on
// the device; only read() makes the host wait.
class StepMessage {
 public:
  // Collective. `comm` outlives the message.
  StepMessage(Communicator& comm, const std::string& device, int64_t num_pieces);

  void begin();
  // Views to add to, on the device, float64: a piece's sum of sample losses, its gradient's squared
  // norm (0-d); digits of the squared norm of this rank's slice of the summed gradient.
  [[nodiscard]] at::Tensor piece_loss(int64_t piece) const;
  [[nodiscard]] at::Tensor piece_squares(int64_t piece) const;
  // Its sum of the prior set's losses, unweighted; with their weight they are in piece_loss() too.
  [[nodiscard]] at::Tensor piece_prior_loss(int64_t piece) const;
  [[nodiscard]] at::Tensor digits() const;  // (kNumDigits)
  // Likewise after optim.max_grad_value; left at zero without it.
  [[nodiscard]] at::Tensor bounded_digits() const;
  void request_stop();
  void add_gradient_checksum(const at::Tensor& checksum);   // 0-d int64, of this rank's slice.
  void add_parameter_checksum(const at::Tensor& checksum);  // Likewise, after the update.

  void exchange();                     // Collective.
  void exchange_parameter_checksum();  // Collective; a message of its own, after the update.
  // After exchange(), 0-d on the device: |gradient|^2 over all ranks, as it was summed and with its
  // elements bounded; sum of all losses.
  [[nodiscard]] at::Tensor squared_norm() const;
  [[nodiscard]] at::Tensor bounded_squared_norm() const;
  [[nodiscard]] at::Tensor loss_sum() const;

  struct Content {
    std::vector<double> piece_losses;
    std::vector<double> piece_squares;
    std::vector<double> piece_prior_losses;
    double squared_norm = 0.0;
    double bounded_squared_norm = 0.0;
    bool stop = false;
    double loss_scale = 1.0;
    uint64_t gradient_checksum = 0;
    uint64_t parameter_checksum = 0;
  };
  // One host copy for each step that may be under way.
  void copy_to_host(HostCopy& copy, const at::Tensor& loss_scale) const;
  [[nodiscard]] Content read(HostCopy& copy, const std::function<void()>& poll) const;

 private:
  [[nodiscard]] at::Tensor part(int64_t first, int64_t count) const;
  void add_halves(int64_t place, const at::Tensor& checksum);

  Communicator& comm_;
  int64_t num_pieces_;
  std::unique_ptr<CommBuffer> memory_;
  at::Tensor values_;              // float64
  at::Tensor parameter_checksum_;  // The tail of it, exchanged by itself.
};
}  // namespace trireme
