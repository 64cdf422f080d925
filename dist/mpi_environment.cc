#include "dist/mpi_environment.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <optional>

#include <unistd.h>

#include "core/log.h"
#include "dist/announced.h"
#include "dist/mpi_environment_impl.h"

namespace trireme {
namespace {
constexpr size_t kHostBytes = 64;
using HostName = std::array<char, kHostBytes>;

void start_mpi() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  check(initialized == 0, "one MpiEnvironment a process");
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided));
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  if (provided >= MPI_THREAD_MULTIPLE) return;
  MPI_Finalize();
  throw UsageError(
      "This MPI library does not support several threads (MPI_THREAD_MULTIPLE), which trireme "
      "needs; use an Open MPI that was built with thread support.");
}

std::vector<std::string> gather_hosts(int world_size) {
  HostName mine{};
  gethostname(mine.data(), mine.size() - 1);
  std::vector<HostName> all(static_cast<size_t>(world_size));
  check_mpi(MPI_Allgather(mine.data(), kHostBytes, MPI_CHAR, all.data(), kHostBytes, MPI_CHAR,
                          MPI_COMM_WORLD));
  std::vector<std::string> hosts;
  for (auto& name : all) {
    name.back() = '\0';
    hosts.emplace_back(name.data());
  }
  return hosts;
}

bool all_ranks_unwind(MpiEnvironment::Impl& impl) noexcept {
  constexpr double kSeconds = 3.0;
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(impl.failure->comm(), &request) != MPI_SUCCESS) return false;
  try {
    return impl.failure->wait_for(request, kSeconds);
  } catch (const std::exception&) {
    return false;
  }
}

std::optional<double> timeout_from_environment() {
  const char* text = std::getenv("TRIREME_TIMEOUT_SECONDS");
  const double value = text == nullptr ? 0.0 : std::atof(text);
  return value > 0 ? std::optional(value) : std::nullopt;
}
}  // namespace

MpiEnvironment::MpiEnvironment() : impl_(std::make_unique<Impl>()) {
  const Announced announced = announced_processes();
  check_direct_launch(announced);
  start_mpi();
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &impl_->rank));
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &impl_->world_size));
  if (announced.num_processes > impl_->world_size) {
    MPI_Finalize();
    check_announced(announced, impl_->world_size);
  }
  impl_->forced_timeout_seconds = timeout_from_environment();
  impl_->timeout_seconds = impl_->forced_timeout_seconds.value_or(impl_->timeout_seconds);
  impl_->num_exceptions = std::uncaught_exceptions();
  impl_->hosts = gather_hosts(impl_->world_size);
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, impl_->rank, MPI_INFO_NULL, &node));
  impl_->node.reset(node);
  check_mpi(MPI_Comm_set_errhandler(node, MPI_ERRORS_RETURN));
  check_mpi(MPI_Comm_rank(node, &impl_->local_rank));
  check_mpi(MPI_Comm_size(node, &impl_->local_size));
  impl_->control =
      std::make_unique<MpiChannel>(MPI_COMM_WORLD, impl_->timeout_seconds, impl_->hosts);
  impl_->failure =
      std::make_unique<MpiChannel>(MPI_COMM_WORLD, impl_->timeout_seconds, impl_->hosts);
  std::array<double, 1> nodes{impl_->local_rank == 0 ? 1.0 : 0.0};
  all_reduce_sum(nodes);
  impl_->num_nodes = static_cast<int>(nodes[0]);
}

MpiEnvironment::~MpiEnvironment() {
  // Unwinding from an error that was not agreed on: MPI_Finalize would wait for ranks that do not
  // fail.
  if (std::uncaught_exceptions() > impl_->num_exceptions && !impl_->agreed &&
      !all_ranks_unwind(*impl_)) {
    log::error("Rank " + std::to_string(impl_->rank) +
               " failed between collectives; all ranks end.");
    abort(ExitCode::kOther);
  }
  impl_->control.reset();
  impl_->failure.reset();
  impl_->node.reset();
  log::flush();
  MPI_Finalize();
}

int MpiEnvironment::rank() const noexcept { return impl_->rank; }
int MpiEnvironment::world_size() const noexcept { return impl_->world_size; }
int MpiEnvironment::local_rank() const noexcept { return impl_->local_rank; }
int MpiEnvironment::local_size() const noexcept { return impl_->local_size; }
int MpiEnvironment::num_nodes() const noexcept { return impl_->num_nodes; }
std::string MpiEnvironment::host_name() const {
  return impl_->hosts[static_cast<size_t>(impl_->rank)];
}
void MpiEnvironment::set_timeout_seconds(double seconds) {
  impl_->control->set_timeout(impl_->forced_timeout_seconds.value_or(seconds));
}

void MpiEnvironment::barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(impl_->control->comm(), &request));
  impl_->control->wait(request, "a barrier");
}

void MpiEnvironment::all_reduce_max(std::span<int64_t> values) {
  impl_->control->max(values, "an agreement (maximum)");
}

void MpiEnvironment::all_reduce_sum(std::span<double> values) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE,
                           MPI_SUM, impl_->control->comm(), &request));
  impl_->control->wait(request, "an agreement (sum)");
}

std::vector<std::string> MpiEnvironment::gather_strings(const std::string& mine) {
  std::array<int64_t, 1> longest{static_cast<int64_t>(mine.size())};
  all_reduce_max(longest);
  // Fixed-width records: the length, then the text.
  const size_t width = sizeof(int64_t) + static_cast<size_t>(longest[0]);
  std::vector<char> record(width);
  std::vector<char> records(width * static_cast<size_t>(impl_->world_size));
  const auto length = static_cast<int64_t>(mine.size());
  std::copy_n(reinterpret_cast<const char*>(&length), sizeof length, record.data());
  std::ranges::copy(mine, record.data() + sizeof length);
  check(width < (size_t{1} << 31), "gathered strings of at most 2 GiB");
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(record.data(), static_cast<int>(width), MPI_CHAR, records.data(),
                           static_cast<int>(width), MPI_CHAR, impl_->control->comm(), &request));
  impl_->control->wait(request, "gathering texts");
  std::vector<std::string> all;
  for (size_t first = 0; first < records.size(); first += width) {
    int64_t size = 0;
    std::copy_n(records.data() + first, sizeof size, reinterpret_cast<char*>(&size));
    all.emplace_back(records.data() + first + sizeof size, static_cast<size_t>(size));
  }
  return all;
}

void MpiEnvironment::broadcast_string(std::string& value, int root) {
  auto size = static_cast<uint64_t>(value.size());
  impl_->control->broadcast(&size, sizeof size, root, "a broadcast (length)");
  value.resize(static_cast<size_t>(size));
  impl_->control->broadcast(value.data(), value.size(), root, "a broadcast (text)");
}

void MpiEnvironment::broadcast_bytes(std::span<std::byte> bytes, int root) {
  impl_->control->broadcast(bytes.data(), bytes.size(), root, "a broadcast");
}

void MpiEnvironment::abort(ExitCode code) noexcept {
  log::flush();
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}
}  // namespace trireme
