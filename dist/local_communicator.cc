#include "dist/local_communicator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include <sys/mman.h>

#include "core/error.h"
#include "dist/collective_checks.h"
#include "dist/communication_thread.h"

namespace trireme {
namespace {
class HostBuffer final : public CommBuffer {
 public:
  HostBuffer(int64_t num_elements, ScalarType type) : num_elements_(num_elements), type_(type) {
    const size_t wanted = std::max<size_t>(view().size_bytes(), 1);
    const size_t alignment = wanted >= kHugePage ? kHugePage : kCacheLine;
    const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
    memory_.reset(std::aligned_alloc(alignment, bytes));
    if (!memory_) throw std::bad_alloc();
    if (alignment == kHugePage) madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // Only a wish.
    std::memset(memory_.get(), 0, bytes);
  }
  [[nodiscard]] BufferView view() const noexcept override {
    return {memory_.get(), num_elements_, type_};
  }

 private:
  struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  static constexpr size_t kCacheLine = 64;
  // Passes over gradients are a tenth faster on these.
  static constexpr size_t kHugePage = size_t{2} << 20;
  int64_t num_elements_;
  ScalarType type_;
  std::unique_ptr<void, Free> memory_;
};

class LocalCommunicator final : public Communicator {
 public:
  [[nodiscard]] int rank() const noexcept override { return 0; }
  [[nodiscard]] int world_size() const noexcept override { return 1; }
  [[nodiscard]] std::string_view backend() const noexcept override { return "local"; }

  [[nodiscard]] std::unique_ptr<CommBuffer> allocate(int64_t num_elements,
                                                     ScalarType type) override {
    return allocate_host_buffer(num_elements, type);
  }
  [[nodiscard]] std::unique_ptr<Work> all_reduce(BufferView, ReduceOp) override {
    return std::make_unique<FinishedWork>();
  }
  [[nodiscard]] std::unique_ptr<Work> broadcast(BufferView, int root) override {
    check_root(root, 1);
    return std::make_unique<FinishedWork>();
  }
  [[nodiscard]] std::unique_ptr<Work> all_gather(BufferView in, BufferView out) override {
    check_gather(in, out, 1);
    return copy(in, out);
  }
  [[nodiscard]] std::unique_ptr<Work> reduce_scatter(BufferView in, BufferView out) override {
    check_scatter(in, out, 1);
    return copy(in, out);
  }
  [[nodiscard]] std::unique_ptr<Work> all_to_all(BufferView in, BufferView out) override {
    check_exchange(in, out, 1);
    return copy(in, out);
  }
  void abort() noexcept override {}

 private:
  static std::unique_ptr<Work> copy(BufferView in, BufferView out) {
    if (in.data != out.data && out.num_elements > 0)
      std::memcpy(out.data, in.data, out.size_bytes());
    return std::make_unique<FinishedWork>();
  }
};
}  // namespace

std::unique_ptr<CommBuffer> allocate_host_buffer(int64_t num_elements, ScalarType type) {
  check(num_elements >= 0, "a buffer's length is not negative");
  return std::make_unique<HostBuffer>(num_elements, type);
}

std::unique_ptr<Communicator> make_local_communicator() {
  return std::make_unique<LocalCommunicator>();
}
}  // namespace trireme
