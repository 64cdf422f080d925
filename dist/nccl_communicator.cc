#include "dist/nccl_communicator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

#include "core/error.h"
#include "dist/backoff.h"
#include "dist/collective_checks.h"
#include "dist/nccl_handles.h"

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;

ncclDataType_t nccl_type(ScalarType type) noexcept {
  switch (type) {
    case ScalarType::kFloat32:
      return ncclFloat32;
    case ScalarType::kFloat64:
      return ncclFloat64;
    case ScalarType::kInt64:
      return ncclInt64;
    case ScalarType::kBFloat16:
      return ncclBfloat16;
    case ScalarType::kFloat16:
      return ncclFloat16;
    case ScalarType::kUInt8:
      return ncclUint8;
  }
  return ncclUint8;
}

ncclRedOp_t nccl_op(ReduceOp op) noexcept {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kMax:
      return ncclMax;
    case ReduceOp::kMin:
      return ncclMin;
  }
  return ncclSum;
}

class DeviceBuffer final : public CommBuffer {
 public:
  DeviceBuffer(int64_t num_elements, ScalarType type) : num_elements_(num_elements), type_(type) {
    const size_t bytes = std::max<size_t>(view().size_bytes(), 1);
    void* memory = nullptr;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
      cudaGetLastError();  // Clears it.
      throw UsageError(
          "The GPU has no memory for a gradient buffer of " + std::to_string(bytes) +
          " bytes. Use a smaller batch.micro, parallel.shard_optimizer = true, or more GPUs.");
    }
    memory_.reset(memory);
    check_cuda(cudaMemset(memory, 0, bytes));
    check_cuda(cudaDeviceSynchronize());
  }
  [[nodiscard]] BufferView view() const noexcept override {
    return {memory_.get(), num_elements_, type_};
  }

 private:
  int64_t num_elements_;
  ScalarType type_;
  UniqueDeviceMemory memory_;
};

// A collective on the communication stream, from enqueueing to its event.
struct Flight {
  UniqueEvent done = make_event();
  Clock::time_point begin = Clock::now();
  std::string_view what;
};

// Collectives run on a stream of their own, of high priority, between an event of the caller's
// stream and one that it waits for. A watchdog looks after them, also while the host is blocked in
// a call that waits for the device: NCCL's asynchronous errors and collectives past their deadline
// abort the communicator, which lets the device go on; the next call then throws what happened.
class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const CommunicatorOptions& options, int rank, int world_size,
                   const ncclUniqueId& id);
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int world_size() const noexcept override { return world_size_; }
  [[nodiscard]] std::string_view backend() const noexcept override { return "nccl"; }
  [[nodiscard]] std::unique_ptr<CommBuffer> allocate(int64_t num_elements,
                                                     ScalarType type) override {
    check(num_elements >= 0, "a buffer's length is not negative");
    check_cuda(cudaSetDevice(options_.device));
    return std::make_unique<DeviceBuffer>(num_elements, type);
  }
  [[nodiscard]] std::unique_ptr<Work> all_reduce(BufferView buffer, ReduceOp op) override;
  [[nodiscard]] std::unique_ptr<Work> broadcast(BufferView buffer, int root) override;
  [[nodiscard]] std::unique_ptr<Work> all_gather(BufferView in, BufferView out) override;
  [[nodiscard]] std::unique_ptr<Work> reduce_scatter(BufferView in, BufferView out) override;
  [[nodiscard]] std::unique_ptr<Work> all_to_all(BufferView in, BufferView out) override;
  void abort() noexcept override {
    const std::lock_guard lock(mutex_);
    abort_locked();
  }
  // Throws where NCCL reports an error or the oldest collective in flight has passed its deadline.
  void check_health() override {
    const std::lock_guard lock(mutex_);
    check_health_locked();
  }
  void make_compute_wait(const Flight& flight) {
    check_cuda(cudaStreamWaitEvent(compute_stream(), flight.done.get(), 0));
  }

 private:
  class NcclWork;
  template <typename Enqueue>
  std::unique_ptr<Work> enqueue(std::string_view what, const Enqueue& call);
  [[nodiscard]] cudaStream_t compute_stream() const {
    return options_.compute_stream ? static_cast<cudaStream_t>(options_.compute_stream()) : nullptr;
  }
  void check_health_locked();
  void abort_locked() noexcept {
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }
  void watch(const std::stop_token& stop);
  [[nodiscard]] bool is_settled(std::string_view what, double seconds);
  void settle(std::string_view what);
  [[noreturn]] void throw_late(std::string_view what, double seconds) const;

  CommunicatorOptions options_;
  int rank_;
  int world_size_;
  UniqueStream stream_;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable_any woken_;
  ncclComm_t comm_ = nullptr;
  std::deque<std::shared_ptr<Flight>> in_flight_;  // In the order of the stream.
  std::string failure_;                            // Why the communicator was aborted, if it was.
  std::jthread watchdog_;                          // Last: ends before what it looks at.
};

class NcclCommunicator::NcclWork final : public Work {
 public:
  NcclWork(NcclCommunicator& owner, std::shared_ptr<Flight> flight)
      : owner_(owner), flight_(std::move(flight)) {}
  void wait() override {
    owner_.check_health();
    owner_.make_compute_wait(*flight_);
  }
  [[nodiscard]] bool is_done() override {
    owner_.check_health();
    const cudaError_t state = cudaEventQuery(flight_->done.get());
    if (state == cudaErrorNotReady) return false;
    check_cuda(state);
    return true;
  }

 private:
  NcclCommunicator& owner_;
  std::shared_ptr<Flight> flight_;
};

NcclCommunicator::NcclCommunicator(const CommunicatorOptions& options, int rank, int world_size,
                                   const ncclUniqueId& id)
    : options_(options), rank_(rank), world_size_(world_size) {
  check_cuda(cudaSetDevice(options_.device));
  stream_ = make_high_priority_stream();
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;  // So that every wait has this program's deadline.
  check_nccl(ncclCommInitRankConfig(&comm_, world_size, id, rank, &config), nullptr);
  try {
    settle("connecting");
  } catch (...) {
    abort();
    throw;
  }
  watchdog_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

NcclCommunicator::~NcclCommunicator() {
  watchdog_.request_stop();
  if (watchdog_.joinable()) watchdog_.join();
  if (comm_ == nullptr) return;
  // With work in flight after an error the peers may be gone: destroying would wait for them.
  if (std::uncaught_exceptions() > 0 || cudaStreamQuery(stream_.get()) != cudaSuccess) {
    abort();
  } else {
    ncclCommDestroy(comm_);
  }
}

void NcclCommunicator::watch(const std::stop_token& stop) {
  constexpr std::chrono::milliseconds kPeriod(100);
  if (cudaSetDevice(options_.device) != cudaSuccess) return;
  std::unique_lock lock(mutex_);
  while (!woken_.wait_for(lock, stop, kPeriod, [] { return false; }) && !stop.stop_requested()) {
    if (comm_ == nullptr) return;
    try {
      check_health_locked();
    } catch (const Error& error) {
      failure_ = error.what();
      abort_locked();
    }
  }
}

void NcclCommunicator::throw_late(std::string_view what, double seconds) const {
  throw LostError("Rank " + std::to_string(rank_) + " waited " +
                  std::to_string(std::llround(seconds)) + " s in NCCL's " + std::string(what) +
                  ": another rank or the network is late or gone. Look at the other ranks' logs; "
                  "NCCL_DEBUG=INFO shows the network. Start the run again, it goes on from its "
                  "newest checkpoint.");
}

bool NcclCommunicator::is_settled(std::string_view what, double seconds) {
  const std::lock_guard lock(mutex_);
  if (comm_ == nullptr) throw LostError("This rank gave up its collectives.");
  ncclResult_t state = ncclSuccess;
  check_nccl(ncclCommGetAsyncError(comm_, &state), comm_);
  check_nccl(state, comm_);
  if (state != ncclInProgress) return true;
  if (seconds > options_.timeout_seconds) throw_late(what, seconds);
  return false;
}

void NcclCommunicator::settle(std::string_view what) {
  Backoff backoff;
  while (!is_settled(what, backoff.seconds())) backoff.pause();
}

void NcclCommunicator::check_health_locked() {
  if (!failure_.empty()) throw LostError(failure_);
  if (comm_ == nullptr) throw LostError("This rank gave up its collectives.");
  ncclResult_t state = ncclSuccess;
  check_nccl(ncclCommGetAsyncError(comm_, &state), comm_);
  check_nccl(state, comm_);
  while (!in_flight_.empty() && cudaEventQuery(in_flight_.front()->done.get()) == cudaSuccess) {
    in_flight_.pop_front();
  }
  if (in_flight_.empty()) return;
  const auto& oldest = *in_flight_.front();
  const double seconds = std::chrono::duration<double>(Clock::now() - oldest.begin).count();
  if (seconds > options_.timeout_seconds) throw_late(oldest.what, seconds);
}

template <typename Enqueue>
std::unique_ptr<Work> NcclCommunicator::enqueue(std::string_view what, const Enqueue& call) {
  check_cuda(cudaSetDevice(options_.device));  // backward() calls from a thread of its own.
  auto flight = std::make_shared<Flight>();
  flight->what = what;
  {
    const std::lock_guard lock(mutex_);
    check_health_locked();
    // The collective starts when the kernels that the caller has issued so far are done.
    const UniqueEvent ready = make_event();
    check_cuda(cudaEventRecord(ready.get(), compute_stream()));
    check_cuda(cudaStreamWaitEvent(stream_.get(), ready.get(), 0));
    call();
  }
  settle(what);
  check_cuda(cudaEventRecord(flight->done.get(), stream_.get()));
  const std::lock_guard lock(mutex_);
  in_flight_.push_back(flight);
  return std::make_unique<NcclWork>(*this, std::move(flight));
}

std::unique_ptr<Work> NcclCommunicator::all_reduce(BufferView buffer, ReduceOp op) {
  return enqueue("all_reduce", [&] {
    check_nccl(ncclAllReduce(buffer.data, buffer.data, static_cast<size_t>(buffer.num_elements),
                             nccl_type(buffer.type), nccl_op(op), comm_, stream_.get()),
               comm_);
  });
}

std::unique_ptr<Work> NcclCommunicator::broadcast(BufferView buffer, int root) {
  check_root(root, world_size_);
  return enqueue("broadcast", [&] {
    check_nccl(ncclBroadcast(buffer.data, buffer.data, static_cast<size_t>(buffer.num_elements),
                             nccl_type(buffer.type), root, comm_, stream_.get()),
               comm_);
  });
}

std::unique_ptr<Work> NcclCommunicator::all_gather(BufferView in, BufferView out) {
  check_gather(in, out, world_size_);
  return enqueue("all_gather", [&] {
    check_nccl(ncclAllGather(in.data, out.data, static_cast<size_t>(in.num_elements),
                             nccl_type(in.type), comm_, stream_.get()),
               comm_);
  });
}

std::unique_ptr<Work> NcclCommunicator::reduce_scatter(BufferView in, BufferView out) {
  check_scatter(in, out, world_size_);
  return enqueue("reduce_scatter", [&] {
    check_nccl(ncclReduceScatter(in.data, out.data, static_cast<size_t>(out.num_elements),
                                 nccl_type(in.type), ncclSum, comm_, stream_.get()),
               comm_);
  });
}

std::unique_ptr<Work> NcclCommunicator::all_to_all(BufferView in, BufferView out) {
  check_exchange(in, out, world_size_);
  const int64_t part = in.num_elements / world_size_;
  const auto count = static_cast<size_t>(part);
  return enqueue("all_to_all", [&] {
    check_nccl(ncclGroupStart(), comm_);
    for (int other = 0; other < world_size_; ++other) {
      check_nccl(ncclSend(in.slice(part * other, part).data, count, nccl_type(in.type), other,
                          comm_, stream_.get()),
                 comm_);
      check_nccl(ncclRecv(out.slice(part * other, part).data, count, nccl_type(out.type), other,
                          comm_, stream_.get()),
                 comm_);
    }
    check_nccl(ncclGroupEnd(), comm_);
  });
}
}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(MpiEnvironment& mpi,
                                                     const CommunicatorOptions& options) {
  ncclUniqueId id{};
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() == 0) check_nccl(ncclGetUniqueId(&id), nullptr);
  });
  mpi.broadcast_bytes(std::as_writable_bytes(std::span(&id, 1)));
  std::unique_ptr<Communicator> communicator;
  mpi.run_on_all_ranks([&] {
    communicator = std::make_unique<NcclCommunicator>(options, mpi.rank(), mpi.world_size(), id);
  });
  return communicator;
}
}  // namespace trireme
