#include "trainer/evaluate/collect.h"

#include <algorithm>
#include <span>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
constexpr int64_t kPiece = int64_t{1} << 22;  // Numbers.
}  // namespace

void all_reduce_in_pieces(MpiEnvironment& mpi, const at::Tensor& values) {
  check(values.is_contiguous() && values.scalar_type() == at::kDouble, "contiguous doubles");
  auto* data = values.data_ptr<double>();
  for (int64_t first = 0; first < values.numel(); first += kPiece) {
    const int64_t n = std::min(kPiece, values.numel() - first);
    mpi.all_reduce_sum(std::span(data + first, static_cast<size_t>(n)));
  }
}

void for_own_groups(const MpiEnvironment& mpi, int64_t count, int64_t size,
                    const std::function<void(int64_t first, int64_t n)>& work) {
  for (int64_t first = 0; first < count; first += size) {
    if (first / size % mpi.world_size() == mpi.rank()) work(first, std::min(size, count - first));
  }
}

void collect_rows(MpiEnvironment& mpi, const at::Tensor& rows) {
  const at::NoGradGuard no_grad;
  const int64_t height = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, rows.size(1)));
  for (int64_t first = 0; first < rows.size(0); first += height) {
    at::Tensor piece = rows.narrow(0, first, std::min(height, rows.size(0) - first));
    const at::Tensor doubles = piece.to(at::kDouble).contiguous();
    all_reduce_in_pieces(mpi, doubles);
    piece.copy_(doubles);
  }
}
}  // namespace trireme
