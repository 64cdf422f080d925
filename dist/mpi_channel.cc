#include "dist/mpi_channel.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "dist/backoff.h"

namespace trireme {
namespace {
constexpr int kQuestionTag = 1;
constexpr int kAnswerTag = 2;
constexpr int kGiveUpTag = 3;
constexpr double kPatienceSeconds = 2.0;      // For answers, after the deadline.
constexpr double kListenEverySeconds = 1e-3;  // Questions are rare.
constexpr size_t kMaxNamed = 8;

std::string seconds_text(double seconds) {
  return seconds < 10 ? std::to_string(seconds).substr(0, 4) + " s"
                      : std::to_string(std::llround(seconds)) + " s";
}
}  // namespace

// A small message on its way; `value` must stay where it is until then.
struct MpiChannel::Sent {
  int64_t value = 0;
  MPI_Request request = MPI_REQUEST_NULL;
};

MpiChannel::MpiChannel(MPI_Comm parent, double timeout_seconds, std::vector<std::string> hosts)
    : comm_(duplicate(parent)), timeout_seconds_(timeout_seconds), hosts_(std::move(hosts)) {
  check_mpi(MPI_Comm_rank(comm_.get(), &rank_));
  check_mpi(MPI_Comm_size(comm_.get(), &size_));
}

MpiChannel::~MpiChannel() {
  // A communicator with operations that never ended is left to MPI_Finalize or MPI_Abort.
  if (in_flight_) static_cast<void>(comm_.release());
  for (const auto& sent : sent_) {
    if (sent->request != MPI_REQUEST_NULL) MPI_Request_free(&sent->request);
  }
}

void MpiChannel::wait(MPI_Request& request, std::string_view what) {
  if (wait_for(request, timeout_seconds_)) return;
  throw LostError(describe_missing(what, timeout_seconds_));
}

bool MpiChannel::wait_for(MPI_Request& request, double seconds) {
  ++sequence_;
  in_flight_ = true;
  Backoff backoff;
  double next_listen = kListenEverySeconds;
  for (;;) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done != 0) break;
    if (stopped_.load(std::memory_order_relaxed))
      throw LostError("This rank gave up a collective.");
    if (backoff.pause() == Backoff::Paused::kYielded) continue;
    const double now = backoff.seconds();
    if (now < next_listen) continue;
    next_listen = now + kListenEverySeconds;
    answer_questions();
    if (now > seconds) return false;
  }
  in_flight_ = false;
  return true;
}

void MpiChannel::broadcast(void* data, size_t num_bytes, int root, std::string_view what) {
  constexpr size_t kMaxBytes = size_t{1} << 30;
  for (size_t first = 0; first < num_bytes; first += kMaxBytes) {
    const int count = static_cast<int>(std::min(kMaxBytes, num_bytes - first));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(
        MPI_Ibcast(static_cast<char*>(data) + first, count, MPI_BYTE, root, comm(), &request));
    wait(request, what);
  }
}

void MpiChannel::max(std::span<int64_t> values, std::string_view what) {
  MPI_Request request = MPI_REQUEST_NULL;
  // NOLINTNEXTLINE(mpi-type-mismatch): it compares with long's own name in MPI.
  check_mpi(MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()),
                           MPI_INT64_T, MPI_MAX, comm(), &request));
  wait(request, what);
}

void MpiChannel::send(int destination, int tag) {
  auto& sent = *sent_.emplace_back(std::make_unique<Sent>());
  sent.value = sequence_;
  check_mpi(MPI_Isend(&sent.value, 1, MPI_INT64_T, destination, tag, comm(), &sent.request));
}

void MpiChannel::answer_questions() {
  MPI_Status status;
  int found = 0;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kGiveUpTag, comm(), &found, &status));
  if (found != 0) throw LostError(name_of(status.MPI_SOURCE) + " failed and left the others.");
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kQuestionTag, comm(), &found, &status));
  if (found == 0) return;
  int64_t value = 0;
  check_mpi(MPI_Recv(&value, 1, MPI_INT64_T, status.MPI_SOURCE, kQuestionTag, comm(), &status));
  send(status.MPI_SOURCE, kAnswerTag);
}

void MpiChannel::give_up() noexcept {
  stop();
  for (int other = 0; other < size_; ++other) {
    if (other == rank_) continue;
    // Never waited for: the message is small enough to leave at once, and an abort follows anyway.
    MPI_Request request = MPI_REQUEST_NULL;
    static const int64_t kNothing = 0;
    MPI_Isend(&kNothing, 1, MPI_INT64_T, other, kGiveUpTag, comm(), &request);
    if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
  }
}

std::string MpiChannel::name_of(int rank) const {
  const auto index = static_cast<size_t>(rank);
  return "rank " + std::to_string(rank) + (index < hosts_.size() ? " on " + hosts_[index] : "");
}

std::string MpiChannel::describe_missing(std::string_view what, double waited_seconds) {
  std::vector<int64_t> at(static_cast<size_t>(size_), -1);
  at[static_cast<size_t>(rank_)] = sequence_;
  for (int other = 0; other < size_; ++other) {
    if (other != rank_) send(other, kQuestionTag);
  }
  Backoff backoff;
  while (backoff.seconds() < kPatienceSeconds && std::ranges::count(at, -1) > 0) {
    MPI_Status status;
    int found = 0;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kAnswerTag, comm(), &found, &status));
    if (found != 0) {
      int64_t& value = at[static_cast<size_t>(status.MPI_SOURCE)];
      check_mpi(MPI_Recv(&value, 1, MPI_INT64_T, status.MPI_SOURCE, kAnswerTag, comm(), &status));
      continue;
    }
    answer_questions();
    backoff.pause();
  }
  std::string late;
  size_t num_late = 0;
  for (int other = 0; other < size_; ++other) {
    if (at[static_cast<size_t>(other)] >= sequence_) continue;
    if (++num_late <= kMaxNamed) late += (late.empty() ? "" : ", ") + name_of(other);
  }
  if (num_late > kMaxNamed) late += " and " + std::to_string(num_late - kMaxNamed) + " more";
  const std::string waited = name_of(rank_) + " waited " + seconds_text(waited_seconds) + " in " +
                             std::string(what) + " (operation " + std::to_string(sequence_) + ")";
  const std::string cure =
      " Start the run again: it goes on from its newest checkpoint, at any number of ranks.";
  if (num_late == 0) {
    return "The network is stuck: " + waited + ", and all other ranks wait there too." + cure;
  }
  return "Late or gone: " + late + ". " + waited + " and had no sign of " +
         (num_late == 1 ? "it" : "them") + "; look at what happened on that host." + cure;
}
}  // namespace trireme
