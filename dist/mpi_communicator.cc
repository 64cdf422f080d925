#include "dist/mpi_communicator.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <vector>

#include "dist/collective_checks.h"
#include "dist/communication_thread.h"
#include "dist/local_communicator.h"
#include "dist/mpi_environment_impl.h"

namespace trireme {
namespace {
// `count` elements, a whole part apart from the next such: a piece of every rank's part at once, at
// distances that no `int` displacement could express.
UniqueType strided_type(ScalarType type, int64_t count, int64_t part_elements) {
  MPI_Datatype piece = MPI_DATATYPE_NULL;
  check_mpi(MPI_Type_contiguous(static_cast<int>(count), mpi_type(type), &piece));
  const UniqueType owned_piece(piece);
  MPI_Datatype strided = MPI_DATATYPE_NULL;
  const auto extent =
      static_cast<MPI_Aint>(part_elements * static_cast<int64_t>(size_bytes_of(type)));
  check_mpi(MPI_Type_create_resized(piece, 0, extent, &strided));
  UniqueType owned(strided);
  check_mpi(MPI_Type_commit(&strided));
  return owned;
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MpiEnvironment& mpi, const MpiCommunicatorOptions& options)
      : max_count_(options.max_count),
        channel_(MPI_COMM_WORLD, options.timeout_seconds, mpi.impl().hosts),
        thread_([this] { channel_.stop(); }, options.trace) {}

  [[nodiscard]] int rank() const noexcept override { return channel_.rank(); }
  [[nodiscard]] int world_size() const noexcept override { return channel_.size(); }
  [[nodiscard]] std::string_view backend() const noexcept override { return "mpi"; }
  [[nodiscard]] std::unique_ptr<CommBuffer> allocate(int64_t num_elements,
                                                     ScalarType type) override {
    return allocate_host_buffer(num_elements, type);
  }

  [[nodiscard]] std::unique_ptr<Work> all_reduce(BufferView buffer, ReduceOp op) override {
    check_reducible(buffer.type);
    return thread_.start([this, buffer, op] { run_all_reduce(buffer, op); }, "all-reduce");
  }
  [[nodiscard]] std::unique_ptr<Work> broadcast(BufferView buffer, int root) override {
    check_root(root, world_size());
    return thread_.start([this, buffer, root] { run_broadcast(buffer, root); }, "broadcast");
  }
  [[nodiscard]] std::unique_ptr<Work> all_gather(BufferView in, BufferView out) override {
    check_gather(in, out, world_size());
    return thread_.start([this, in, out] { run_all_gather(in, out); }, "all-gather");
  }
  [[nodiscard]] std::unique_ptr<Work> reduce_scatter(BufferView in, BufferView out) override {
    check_reducible(in.type);
    check_scatter(in, out, world_size());
    return thread_.start([this, in, out] { run_reduce_scatter(in, out); }, "reduce-scatter");
  }
  [[nodiscard]] std::unique_ptr<Work> all_to_all(BufferView in, BufferView out) override {
    check_exchange(in, out, world_size());
    return thread_.start([this, in, out] { run_all_to_all(in, out); }, "all-to-all");
  }
  void abort() noexcept override {
    channel_.give_up();
    thread_.abandon();
  }

 private:
  void run_all_reduce(BufferView buffer, ReduceOp op);
  void run_broadcast(BufferView buffer, int root);
  void run_all_gather(BufferView in, BufferView out);
  void run_reduce_scatter(BufferView in, BufferView out);
  void run_reduce_scatter_cut(BufferView in, BufferView out);
  void run_all_to_all(BufferView in, BufferView out);

  int64_t max_count_;
  MpiChannel channel_;
  CommunicationThread thread_;  // Last: ends before the channel does.
};

void MpiCommunicator::run_all_reduce(BufferView buffer, ReduceOp op) {
  for (int64_t first = 0; first < buffer.num_elements; first += max_count_) {
    const BufferView piece = buffer.slice(first, std::min(max_count_, buffer.num_elements - first));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, piece.data, static_cast<int>(piece.num_elements),
                             mpi_type(piece.type), mpi_op(op), channel_.comm(), &request));
    channel_.wait(request, "all_reduce");
  }
}

void MpiCommunicator::run_broadcast(BufferView buffer, int root) {
  for (int64_t first = 0; first < buffer.num_elements; first += max_count_) {
    const BufferView piece = buffer.slice(first, std::min(max_count_, buffer.num_elements - first));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(piece.data, static_cast<int>(piece.num_elements), mpi_type(piece.type),
                         root, channel_.comm(), &request));
    channel_.wait(request, "broadcast");
  }
}

void MpiCommunicator::run_all_gather(BufferView in, BufferView out) {
  const int64_t part = in.num_elements;
  const BufferView own = out.slice(part * rank(), part);
  // In place throughout: one call for both cases, and no aliasing that MPI forbids.
  if (in.data != own.data && part > 0) std::memmove(own.data, in.data, in.size_bytes());
  for (int64_t first = 0; first < part; first += max_count_) {
    const int64_t count = std::min(max_count_, part - first);
    MPI_Request request = MPI_REQUEST_NULL;
    if (count == part) {
      check_mpi(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out.data,
                               static_cast<int>(count), mpi_type(out.type), channel_.comm(),
                               &request));
      channel_.wait(request, "all_gather");
      continue;
    }
    const UniqueType strided = strided_type(out.type, count, part);
    check_mpi(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out.slice(first, 0).data, 1,
                             strided.get(), channel_.comm(), &request));
    channel_.wait(request, "all_gather");
  }
}

void MpiCommunicator::run_reduce_scatter(BufferView in, BufferView out) {
  if (out.num_elements == 0) return;
  if (in.num_elements > max_count_) return run_reduce_scatter_cut(in, out);
  std::vector<std::byte> sum(out.size_bytes());  // `out` may lie in `in`, which MPI forbids.
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ireduce_scatter_block(in.data, sum.data(), static_cast<int>(out.num_elements),
                                      mpi_type(in.type), MPI_SUM, channel_.comm(), &request));
  channel_.wait(request, "reduce_scatter");
  std::memcpy(out.data, sum.data(), sum.size());
}

void MpiCommunicator::run_reduce_scatter_cut(BufferView in, BufferView out) {
  const int64_t part = out.num_elements;
  std::vector<std::byte> sum(out.size_bytes());
  const BufferView own{sum.data(), part, out.type};
  for (int owner = 0; owner < world_size(); ++owner) {
    for (int64_t first = 0; first < part; first += max_count_) {
      const int64_t count = std::min(max_count_, part - first);
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Ireduce(in.slice(part * owner + first, 0).data, own.slice(first, 0).data,
                            static_cast<int>(count), mpi_type(in.type), MPI_SUM, owner,
                            channel_.comm(), &request));
      channel_.wait(request, "reduce_scatter");
    }
  }
  std::memcpy(out.data, sum.data(), sum.size());
}

void MpiCommunicator::run_all_to_all(BufferView in, BufferView out) {
  const int64_t part = in.num_elements / world_size();
  for (int64_t first = 0; first < part; first += max_count_) {
    const int64_t count = std::min(max_count_, part - first);
    MPI_Request request = MPI_REQUEST_NULL;
    if (count == part) {
      check_mpi(MPI_Ialltoall(in.data, static_cast<int>(count), mpi_type(in.type), out.data,
                              static_cast<int>(count), mpi_type(out.type), channel_.comm(),
                              &request));
      channel_.wait(request, "all_to_all");
      continue;
    }
    const UniqueType strided = strided_type(out.type, count, part);
    check_mpi(MPI_Ialltoall(in.slice(first, 0).data, 1, strided.get(), out.slice(first, 0).data, 1,
                            strided.get(), channel_.comm(), &request));
    channel_.wait(request, "all_to_all");
  }
}
}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(MpiEnvironment& mpi,
                                                    const MpiCommunicatorOptions& options) {
  check(options.max_count > 0 && options.max_count <= INT_MAX, "an MPI call's count is an int");
  return std::make_unique<MpiCommunicator>(mpi, options);
}
}  // namespace trireme
