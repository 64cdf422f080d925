#include "dist/shm_segment.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace trireme {
namespace {
// How the other ranks find the file, and know that they found the right one: process numbers may
// mean different processes to ranks in different containers.
struct Address {
  int64_t process = 0;
  int64_t descriptor = -1;
  uint64_t device = 0;
  uint64_t inode = 0;
};

struct Descriptor {
  Descriptor() = default;
  ~Descriptor() {
    if (value >= 0) close(value);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int value = -1;
};

// Both return 0 or errno.
int create_file(size_t size_bytes, Descriptor& file, Address& address) {
  file.value = memfd_create("trireme", MFD_CLOEXEC);
  if (file.value < 0 || ftruncate(file.value, static_cast<off_t>(size_bytes)) != 0) return errno;
  struct stat status{};
  if (fstat(file.value, &status) != 0) return errno;
  address = {.process = getpid(),
             .descriptor = file.value,
             .device = status.st_dev,
             .inode = status.st_ino};
  return 0;
}

int open_file(const Address& address, Descriptor& file) {
  if (address.descriptor < 0) return EIO;
  const std::string path =
      "/proc/" + std::to_string(address.process) + "/fd/" + std::to_string(address.descriptor);
  file.value = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file.value < 0) return errno;
  struct stat status{};
  if (fstat(file.value, &status) != 0) return errno;
  return status.st_dev == address.device && status.st_ino == address.inode ? 0 : ESTALE;
}
}  // namespace

ShmSegment::Created ShmSegment::create(MpiChannel& node, size_t part_bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t stride = (part_bytes / page + 1) * page;
  const size_t total = stride * static_cast<size_t>(node.size());
  Descriptor file;
  Address address;
  int error = node.rank() == 0 ? create_file(total, file, address) : 0;
  node.broadcast(&address, sizeof address, 0, "sharing memory on a node");
  if (node.rank() != 0) error = open_file(address, file);
  void* base = MAP_FAILED;
  if (error == 0) {
    base = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_SHARED, file.value, 0);
    if (base == MAP_FAILED) error = errno;
  }
  std::unique_ptr<ShmSegment> segment;
  if (base != MAP_FAILED)
    segment.reset(new ShmSegment(static_cast<std::byte*>(base), stride, total));
  std::array<int64_t, 1> worst{error};
  node.max(worst, "sharing memory on a node");
  if (worst[0] != 0) return {.segment = nullptr, .error = static_cast<int>(worst[0])};
  return {.segment = std::move(segment), .error = 0};
}

ShmSegment::~ShmSegment() { munmap(base_, total_); }

std::optional<size_t> ShmSegment::offset_of(const void* data, size_t size_bytes,
                                            int rank) const noexcept {
  const auto begin = reinterpret_cast<uintptr_t>(part(rank));
  const auto at = reinterpret_cast<uintptr_t>(data);
  if (at < begin || at - begin > stride_ || size_bytes > stride_ - (at - begin))
    return std::nullopt;
  return at - begin;
}
}  // namespace trireme
