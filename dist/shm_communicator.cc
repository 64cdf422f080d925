#include "dist/shm_communicator.h"

#include <cstring>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "dist/collective_checks.h"
#include "dist/communication_thread.h"
#include "dist/local_communicator.h"
#include "dist/mpi_environment_impl.h"
#include "dist/shm_collectives.h"

namespace trireme {
namespace {
using Kind = ShmRequest::Kind;
constexpr size_t kSmallBytes = 65536;  // Up to here it takes less time than to wake a thread.

// This rank's part of a shared segment.
class ShmBuffer final : public CommBuffer {
 public:
  ShmBuffer(std::shared_ptr<ShmRegistry> registry, std::shared_ptr<ShmSegment> segment,
            BufferView view)
      : registry_(std::move(registry)), number_(registry_->add(std::move(segment))), view_(view) {}
  ~ShmBuffer() override { registry_->remove(number_); }
  ShmBuffer(const ShmBuffer&) = delete;
  ShmBuffer& operator=(const ShmBuffer&) = delete;
  [[nodiscard]] BufferView view() const noexcept override { return view_; }

 private:
  std::shared_ptr<ShmRegistry> registry_;
  int64_t number_;
  BufferView view_;
};

class ShmCommunicator final : public Communicator {
 public:
  ShmCommunicator(std::unique_ptr<MpiChannel> control, std::unique_ptr<ShmSegment> slots,
                  std::unique_ptr<ShmSegment> scratch, const ShmCommunicatorOptions& options)
      : control_(std::move(control)),
        registry_(std::make_shared<ShmRegistry>()),
        group_(std::move(slots), control_->rank(), control_->size(), options.timeout_seconds),
        collectives_(group_, registry_, std::move(scratch), options.scratch_bytes),
        thread_([this] { group_.stop(); }, options.trace) {
    std::array<int64_t, 1> nothing{0};
    control_->max(nothing, "sharing memory on a node");  // Every slot is set up.
  }

  [[nodiscard]] int rank() const noexcept override { return group_.rank(); }
  [[nodiscard]] int world_size() const noexcept override { return group_.size(); }
  [[nodiscard]] std::string_view backend() const noexcept override { return "shm"; }
  [[nodiscard]] std::unique_ptr<CommBuffer> allocate(int64_t num_elements,
                                                     ScalarType type) override;

  [[nodiscard]] std::unique_ptr<Work> all_reduce(BufferView buffer, ReduceOp op) override {
    check_reducible(buffer.type);
    return start({.kind = Kind::kAllReduce, .op = static_cast<int32_t>(op)}, buffer, buffer);
  }
  [[nodiscard]] std::unique_ptr<Work> broadcast(BufferView buffer, int root) override {
    check_root(root, world_size());
    return start({.kind = Kind::kBroadcast, .root = root}, buffer, buffer);
  }
  [[nodiscard]] std::unique_ptr<Work> all_gather(BufferView in, BufferView out) override {
    check_gather(in, out, world_size());
    return start({.kind = Kind::kAllGather}, in, out);
  }
  [[nodiscard]] std::unique_ptr<Work> reduce_scatter(BufferView in, BufferView out) override {
    check_reducible(in.type);
    check_scatter(in, out, world_size());
    return start({.kind = Kind::kReduceScatter}, in, out);
  }
  [[nodiscard]] std::unique_ptr<Work> all_to_all(BufferView in, BufferView out) override {
    check_exchange(in, out, world_size());
    return start({.kind = Kind::kAllToAll}, in, out);
  }
  void abort() noexcept override {
    group_.give_up();
    control_->give_up();
    thread_.abandon();
  }

 private:
  std::unique_ptr<Work> start(ShmRequest request, BufferView in, BufferView out) {
    request.type = static_cast<int32_t>(in.type);
    request.num_elements = in.num_elements;
    registry_->locate(in, rank(), request);
    static constexpr std::array<const char*, 5> kNames = {"all-reduce", "broadcast", "all-gather",
                                                          "reduce-scatter", "all-to-all"};
    const auto when = in.size_bytes() <= kSmallBytes ? CommunicationThread::Start::kLazy
                                                     : CommunicationThread::Start::kNow;
    return thread_.start([this, request, in, out] { collectives_.run(request, in, out); },
                         kNames[static_cast<size_t>(request.kind)], when);
  }

  std::unique_ptr<MpiChannel> control_;  // For allocate(), on the caller's thread.
  std::shared_ptr<ShmRegistry> registry_;
  ShmGroup group_;
  ShmCollectives collectives_;
  CommunicationThread thread_;  // Last: ends before what it uses.
};

std::unique_ptr<CommBuffer> ShmCommunicator::allocate(int64_t num_elements, ScalarType type) {
  check(num_elements >= 0, "a buffer's length is not negative");
  BufferView view{nullptr, num_elements, type};
  auto created = ShmSegment::create(*control_, view.size_bytes());
  if (created.segment == nullptr) {
    if (rank() == 0) {
      log::warn("A buffer of " + std::to_string(view.size_bytes()) +
                " bytes could not be shared between ranks (" + std::strerror(created.error) +
                "); it is reduced by copies, which is slower.");
    }
    return allocate_host_buffer(num_elements, type);
  }
  view.data = created.segment->part(rank());
  std::memset(view.data, 0, view.size_bytes());  // Places the pages near this rank.
  return std::make_unique<ShmBuffer>(registry_, std::move(created.segment), view);
}
}  // namespace

ShmCreated make_shm_communicator(MpiEnvironment& mpi, const ShmCommunicatorOptions& options) {
  check(mpi.local_size() == mpi.world_size(), "shared memory is for the ranks of one node");
  // Ranks in the order of the world's, so that both number them alike.
  auto control =
      std::make_unique<MpiChannel>(MPI_COMM_WORLD, options.timeout_seconds, mpi.impl().hosts);
  auto slots = ShmSegment::create(*control, ShmGroup::kSlotBytes);
  if (slots.segment == nullptr)
    return {.communicator = nullptr, .reason = std::strerror(slots.error)};
  auto scratch = ShmSegment::create(*control, options.scratch_bytes);
  if (scratch.segment == nullptr)
    return {.communicator = nullptr, .reason = std::strerror(scratch.error)};
  return {.communicator = std::make_unique<ShmCommunicator>(
              std::move(control), std::move(slots.segment), std::move(scratch.segment), options),
          .reason = {}};
}
}  // namespace trireme
