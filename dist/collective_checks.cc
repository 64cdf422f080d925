#include "dist/collective_checks.h"

#include <functional>

#include "core/error.h"

namespace trireme {
namespace {
void check_types(const BufferView& in, const BufferView& out) {
  check(in.type == out.type, "a collective's buffers have one type");
  check(in.num_elements >= 0 && out.num_elements >= 0, "a collective's lengths are not negative");
}
}  // namespace

bool overlaps(const BufferView& a, const BufferView& b) noexcept {
  const auto* a_begin = static_cast<const std::byte*>(a.data);
  const auto* b_begin = static_cast<const std::byte*>(b.data);
  const std::less<const std::byte*> before;
  return before(a_begin, b_begin + b.size_bytes()) && before(b_begin, a_begin + a.size_bytes());
}

void check_root(int root, int world_size) {
  check(root >= 0 && root < world_size, "a broadcast's root is a rank");
}

void check_gather(const BufferView& in, const BufferView& out, int world_size) {
  check_types(in, out);
  check(out.num_elements == in.num_elements * world_size, "all_gather: out holds one part a rank");
}

void check_scatter(const BufferView& in, const BufferView& out, int world_size) {
  check_types(in, out);
  check(in.num_elements == out.num_elements * world_size,
        "reduce_scatter: in holds one part a rank");
}

void check_exchange(const BufferView& in, const BufferView& out, int world_size) {
  check_types(in, out);
  check(in.num_elements == out.num_elements && in.num_elements % world_size == 0,
        "all_to_all: in and out hold one part a rank");
  check(world_size == 1 || !overlaps(in, out), "all_to_all: in and out do not overlap");
}
}  // namespace trireme
