#pragma once
#include "dist/buffer_view.h"

namespace trireme {
// What a collective requires of one rank's arguments; InternalError otherwise. Local, so they come
// before anything is sent.
void check_root(int root, int world_size);
void check_gather(const BufferView& in, const BufferView& out, int world_size);
void check_scatter(const BufferView& in, const BufferView& out, int world_size);
void check_exchange(const BufferView& in, const BufferView& out, int world_size);
[[nodiscard]] bool overlaps(const BufferView& a, const BufferView& b) noexcept;
}  // namespace trireme
