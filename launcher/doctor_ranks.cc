#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <unistd.h>

#include "core/formatted.h"
#include "dist/mpi_environment.h"
#include "dist/mpi_facts.h"
#include "launcher/doctor.h"
#include "trainer/device_facts.h"
#include "trainer/session.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kTestBytes = size_t{64} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string text_of(double value, const char* unit) {
  return formatted("%.*f %s", value < 10 ? 2 : 0, value, unit);
}

Finding thread_level() {
  const std::string level = mpi_thread_level();
  const bool is_enough = level == "MPI_THREAD_MULTIPLE";
  return {"MPI threads", is_enough ? Health::kOk : Health::kFail, level,
          is_enough ? "" : "use an Open MPI that was configured with thread support"};
}

// Of this rank's clock against rank 0's: the least of a few tries, since a barrier takes time.
Finding clock_skew(MpiEnvironment& mpi) {
  double least = INFINITY;
  for (int attempt = 0; attempt < 5; ++attempt) {
    mpi.barrier();
    const double now =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    const auto clocks = mpi.gather_strings(std::to_string(now));
    const double skew = now - std::stod(clocks.front());
    if (std::abs(skew) < std::abs(least)) least = skew;
  }
  const bool is_bad = std::abs(least) > 1.0;
  return {
      "clocks", is_bad ? Health::kWarn : Health::kOk,
      is_bad ? text_of(least, "s from rank 0's") : "within 1 s of rank 0's",
      is_bad ? "timedatectl set-ntp true on that host: logs and file times will not agree" : ""};
}

// One file of the test, removed at the end. Rank 0 writes it.
class TestFile {
 public:
  explicit TestFile(fs::path path) : path_(std::move(path)) {}
  ~TestFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;
  [[nodiscard]] const fs::path& path() const noexcept { return path_; }

  // Seconds; negative with errno set where it failed.
  [[nodiscard]] double write_and_sync() const {
    const auto start = Clock::now();
    const int descriptor = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (descriptor < 0) return -1;
    const std::vector<char> block(size_t{1} << 20, 'x');
    bool is_good = true;
    for (size_t done = 0; is_good && done < kTestBytes; done += block.size())
      is_good = write(descriptor, block.data(), block.size()) == static_cast<ssize_t>(block.size());
    is_good = is_good && fsync(descriptor) == 0;
    const int error = errno;
    close(descriptor);
    errno = error;
    return is_good ? seconds_since(start) : -1;
  }

 private:
  fs::path path_;
};

bool take_lock(int descriptor) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return fcntl(descriptor, F_SETLK, &lock) == 0;
}

// A lock that rank 0 holds keeps the others out, also on other hosts.
Finding locks(MpiEnvironment& mpi, const fs::path& file) {
  const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  bool is_good = descriptor >= 0;
  if (mpi.rank() == 0) is_good = is_good && take_lock(descriptor);
  mpi.barrier();
  if (mpi.rank() != 0) is_good = is_good && !take_lock(descriptor);
  mpi.barrier();
  if (descriptor >= 0) close(descriptor);
  return {"file locks", is_good ? Health::kOk : Health::kFail,
          is_good ? "work" : "do not exclude others",
          is_good ? ""
                  : "mount the file system with locks (NFS: without nolock, and with statd; "
                    "Lustre: -o flock)"};
}

Finding visibility(MpiEnvironment& mpi, const fs::path& file) {
  const auto start = Clock::now();
  std::error_code error;
  while (fs::file_size(file, error) != kTestBytes && seconds_since(start) < 5.0) usleep(1000);
  const bool is_seen = !error && fs::file_size(file, error) == kTestBytes;
  const double waited = seconds_since(start);
  mpi.barrier();
  return {"shared files", is_seen ? Health::kOk : Health::kFail,
          is_seen ? (waited < 1.0 ? "seen at once" : "seen after " + text_of(waited, "s"))
                  : "rank 0's file is not seen here",
          is_seen ? "" : "put run directory and data on a file system that all hosts share"};
}

Findings file_system(MpiEnvironment& mpi, const fs::path& folder) {
  const std::string suffix = std::to_string(Clock::now().time_since_epoch().count());
  std::string name = suffix;
  mpi.broadcast_string(name);
  const TestFile file(folder / (".trireme-doctor-" + name));
  const TestFile lock_file(folder / (".trireme-doctor-lock-" + name));
  Findings findings;
  std::string failure;
  if (mpi.rank() == 0) {
    const double seconds = file.write_and_sync();
    if (seconds < 0) failure = std::strerror(errno);
    const double rate = static_cast<double>(kTestBytes) / (1 << 20) / seconds;
    findings.push_back({"write", seconds < 0 ? Health::kFail : Health::kOk,
                        seconds < 0 ? failure : text_of(rate, "MiB/s with fsync"),
                        seconds < 0 ? "give a folder that can be written to: --dir DIR" : ""});
  }
  mpi.broadcast_string(failure);
  if (!failure.empty()) return findings;
  findings.push_back(visibility(mpi, file.path()));
  if (mpi.rank() == 0) {
    const TestFile over(folder / (".trireme-doctor-old-" + name));
    std::ofstream(over.path()) << "old";
    std::error_code error;
    fs::rename(file.path(), over.path(), error);
    const bool is_good = !error && fs::file_size(over.path()) == kTestBytes;
    findings.push_back({"rename", is_good ? Health::kOk : Health::kFail,
                        is_good ? "replaces a file at once" : "does not replace a file",
                        is_good ? "" : "choose another file system for the run directory"});
  }
  findings.push_back(locks(mpi, lock_file.path()));
  mpi.barrier();  // Before the files go.
  return findings;
}

Finding all_reduce(MpiEnvironment& mpi) {
  const std::string device = choose_device(mpi);
  auto comm = make_communicator(mpi, {.backend = Backend::kAuto,
                                      .timeout_seconds = 60.0,
                                      .device = cuda_index(device),
                                      .compute_stream = compute_stream_of(device)});
  constexpr auto kElements = static_cast<int64_t>(kTestBytes / sizeof(float));
  const auto memory = comm->allocate(kElements, ScalarType::kFloat32);
  std::array<double, 5> seconds{};
  bool is_right = true;
  for (double& taken : seconds) {
    fill_buffer(memory->view(), device, static_cast<float>(mpi.rank() + 1));
    mpi.barrier();
    const auto start = Clock::now();
    comm->all_reduce(memory->view(), ReduceOp::kSum)->wait();
    const float expected = static_cast<float>(mpi.world_size() * (mpi.world_size() + 1)) / 2.0F;
    is_right = holds_everywhere(memory->view(), device, expected) && is_right;
    taken = seconds_since(start);
  }
  std::ranges::sort(seconds);
  std::array<int64_t, 1> micros{static_cast<int64_t>(seconds[2] * 1e6)};
  mpi.all_reduce_max(micros);  // One number for all, that of the slowest.
  const double taken = static_cast<double>(micros[0]) * 1e-6;
  return {
      "all-reduce", is_right ? Health::kOk : Health::kFail,
      is_right ? "64 MiB by " + std::string(comm->backend()) + " in " + text_of(taken * 1e3, "ms") +
                     " (" + text_of(static_cast<double>(kTestBytes) / taken / 1e9, "GB/s") +
                     "), median of 5, with checking"
               : "a wrong sum by " + std::string(comm->backend()),
      is_right ? ""
               : "try parallel.backend = \"mpi\", and NCCL_P2P_DISABLE=1 on GPUs; then report it"};
}
}  // namespace

Findings examine_ranks(MpiEnvironment& mpi, const fs::path& folder) {
  Findings findings{thread_level(), clock_skew(mpi)};
  for (auto& finding : file_system(mpi, folder)) findings.push_back(std::move(finding));
  findings.push_back(all_reduce(mpi));
  return findings;
}
}  // namespace trireme
