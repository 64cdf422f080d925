#include <array>
#include <exception>
#include <new>
#include <string>

#include "core/error.h"
#include "core/filesystem_error.h"
#include "core/log.h"
#include "core/stop_signal.h"
#include "dist/mpi_environment.h"
#include "dist/mpi_environment_impl.h"

namespace trireme {
namespace {
constexpr double kAgreeOnFailureSeconds = 3.0;

// What went wrong on this rank, if anything did.
struct Outcome {
  int code = 0;
  std::string message;
  bool is_own = true;   // Not merely the echo of another rank's error.
  bool is_leaf = true;  // One of this program's errors, which can be thrown again with more text.
  std::exception_ptr error;
};

Outcome describe(const std::exception_ptr& error) {
  Outcome outcome;
  outcome.code = static_cast<int>(ExitCode::kOther);
  outcome.error = error;
  try {
    std::rethrow_exception(error);
  } catch (const PeerFailedError& peer) {
    outcome.code = static_cast<int>(peer.code());
    outcome.is_own = false;
  } catch (const Error& own) {
    outcome.code = static_cast<int>(own.code());
    outcome.message = own.what();
  } catch (const std::bad_alloc&) {
    outcome.message = "Memory is exhausted. Use a smaller batch.micro or more ranks on more hosts.";
  } catch (const std::filesystem::filesystem_error& file) {
    outcome.code = static_cast<int>(ExitCode::kInput);
    outcome.message = message_of(file);
  } catch (const std::exception& other) {
    outcome.message = other.what();
    outcome.is_leaf = false;
  } catch (...) {
    outcome.message = "unknown exception";
    outcome.is_leaf = false;
  }
  if (outcome.code == 0) outcome.code = static_cast<int>(ExitCode::kOther);
  return outcome;
}

[[noreturn]] void throw_leaf(int code, const std::string& message) {
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::kUsage:
      throw UsageError(message);
    case ExitCode::kInput:
      throw InputError(message);
    case ExitCode::kLost:
      throw LostError(message);
    case ExitCode::kDiverged:
      throw DivergedError(message);
    case ExitCode::kOther:
      throw InternalError(message);
    default:
      throw Error(static_cast<ExitCode>(code), message);
  }
}

// One number that orders outcomes: the larger code first, then one's own error, then the lower
// rank.
int64_t priority(const Outcome& outcome, int rank) {
  if (outcome.code == 0) return 0;
  return (int64_t{outcome.code} << 40) | (int64_t{outcome.is_own ? 1 : 0} << 39) |
         (INT32_MAX - rank);
}

[[noreturn]] void throw_agreed(const Outcome& mine, const MpiEnvironment& mpi, int64_t first,
                               bool all_failed) {
  const int code = static_cast<int>(first >> 40);
  if (priority(mine, mpi.rank()) != first) throw PeerFailedError(static_cast<ExitCode>(code));
  if (all_failed || !mine.is_leaf) std::rethrow_exception(mine.error);
  throw_leaf(code, mine.message + " (On rank " + std::to_string(mpi.rank()) + " of " +
                       std::to_string(mpi.world_size()) + ", host " + mpi.host_name() + ".)");
}

// Throws the agreed error unless no rank failed. `values` are the maxima over ranks.
void conclude(MpiEnvironment& mpi, const Outcome& mine, std::span<const int64_t> values) {
  if (values[0] == 0) return;
  try {
    throw_agreed(mine, mpi, values[0], values[1] == 0);
  } catch (...) {
    mpi.impl().agreed = std::current_exception();
    throw;
  }
}

std::array<int64_t, 2> summary(const MpiEnvironment& mpi, const Outcome& mine) {
  return {priority(mine, mpi.rank()), mine.code == 0 ? 1 : 0};
}

// The agreed error if every rank has one within seconds; else ends all ranks with this one's.
std::exception_ptr agree_or_abort(MpiEnvironment& mpi, const Outcome& mine) {
  auto& channel = *mpi.impl().failure;
  std::array<int64_t, 2> values = summary(mpi, mine);
  MPI_Request request = MPI_REQUEST_NULL;
  int result = MPI_Iallreduce(MPI_IN_PLACE, values.data(), 2, MPI_INT64_T, MPI_MAX, channel.comm(),
                              &request);
  bool together = false;
  try {
    together = result == MPI_SUCCESS && channel.wait_for(request, kAgreeOnFailureSeconds);
  } catch (const LostError&) {
    together = false;
  }
  if (together) {
    try {
      conclude(mpi, mine, values);
    } catch (...) {
      return std::current_exception();
    }
  }
  if (mine.is_own) log::error(mine.message);
  mpi.abort(static_cast<ExitCode>(mine.code));
}

// Where a rank has ended with a code, mpirun and srun end those that are left: none ends before the
// others have said and written what they have to, and a SIGTERM from there changes nothing.
void end_together(MpiEnvironment& mpi, ExitCode code) noexcept {
  log::flush();
  ignore_late_signals();
  auto& channel = *mpi.impl().failure;  // An operation of the other one may never have ended.
  try {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibarrier(channel.comm(), &request));
    channel.wait(request, "the end of all ranks");
  } catch (const Error& error) {
    if (code != ExitCode::kDone) mpi.abort(code);  // Which was told.
    log::error(error.what());
    mpi.abort(error.code());
  }
}
}  // namespace

void MpiEnvironment::run_on_all_ranks(const std::function<void()>& work) {
  Outcome mine;
  try {
    work();
  } catch (...) {
    mine = describe(std::current_exception());
  }
  std::array<int64_t, 2> values = summary(*this, mine);
  all_reduce_max(values);
  conclude(*this, mine, values);
}

int run_as_rank(const std::function<int(MpiEnvironment&)>& body,
                const std::function<int(std::exception_ptr)>& report) {
  MpiEnvironment mpi;
  int code = 0;
  try {
    code = body(mpi);
  } catch (...) {
    std::exception_ptr error = std::current_exception();
    if (error != mpi.impl().agreed) error = agree_or_abort(mpi, describe(error));
    if (!report) std::rethrow_exception(error);
    code = report(error);
  }
  end_together(mpi, static_cast<ExitCode>(code));
  return code;
}
}  // namespace trireme
