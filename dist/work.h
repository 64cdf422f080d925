#pragma once

namespace trireme {

// A collective in flight. Its buffers may not be touched before wait() returns.
class Work {
 public:
  virtual ~Work() = default;
  // On CPUs: blocks until done. With NCCL: makes the caller's compute stream wait, not the host.
  // Throws LostError naming the missing rank where it is known, when the deadline passes.
  virtual void wait() = 0;
  [[nodiscard]] virtual bool is_done() = 0;
};
}  // namespace trireme
