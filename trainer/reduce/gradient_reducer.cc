#include "trainer/reduce/gradient_reducer.h"

#include <bit>
#include <chrono>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {

BufferView view_of(const at::Tensor& tensor) {
  check(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat, "contiguous float32 tensor");
  return {tensor.data_ptr(), tensor.numel(), ScalarType::kFloat32};
}

at::Tensor tree_sum(const at::Tensor& parts) {
  at::Tensor level = parts;  // (n, m)
  while (level.size(0) > 1) {
    const int64_t half = level.size(0) / 2;
    const auto pairs = level.view({half, 2, -1});
    level = pairs.select(1, 0) + pairs.select(1, 1);
  }
  return level.squeeze(0);
}

GradientReducer::GradientReducer(Communicator& comm, GradientBuckets& buckets, Mode mode,
                                 int pieces_per_rank)
    : comm_(comm), buckets_(buckets), mode_(mode), pieces_per_rank_(pieces_per_rank) {
  const size_t num_buckets = buckets_.flat().size();
  pending_.resize(num_buckets);
  works_.resize(num_buckets);
  partial_.resize(num_buckets);
  exchanged_.resize(num_buckets);
  if (mode_ == Mode::kTree) {
    const bool powers = std::has_single_bit(static_cast<unsigned>(pieces_per_rank)) &&
                        std::has_single_bit(static_cast<unsigned>(comm.world_size()));
    check(powers, "tree reduction over powers of two");
  } else {
    check(pieces_per_rank == 1, "one piece a rank without shards");
  }
  for (size_t b = 0; b < num_buckets; ++b) {
    if (mode_ == Mode::kTree) exchanged_[b] = torch::empty_like(buckets_.flat()[b].grads);
    for (const auto& parameter : buckets_.parameters(b)) {
      hooks_.add(parameter, [this, b] { on_gradient(b); });
    }
  }
}

void GradientReducer::begin_step() {
  buckets_.zero_grad();
  piece_ = -1;
  next_bucket_ = 0;
  exposed_seconds_ = 0.0;
}

void GradientReducer::begin_piece() {
  if (piece_ >= 0) buckets_.zero_grad();
  ++piece_;
  armed_ = false;
  check(piece_ < pieces_per_rank_, "more pieces in a step than planned");
}

void GradientReducer::arm() {
  armed_ = true;
  for (size_t b = 0; b < pending_.size(); ++b) {
    pending_[b] = static_cast<int>(buckets_.parameters(b).size());
  }
}

void GradientReducer::on_gradient(size_t bucket) {
  if (!armed_ || --pending_[bucket] > 0) return;
  const torch::NoGradGuard no_grad;
  fold_piece(bucket);
  if (piece_ + 1 == pieces_per_rank_) launch_ready_buckets();
}

void GradientReducer::launch_ready_buckets() {
  while (next_bucket_ < pending_.size() && pending_[next_bucket_] == 0) start(next_bucket_++);
}

// Like adding 1 to a binary counter: two complete subtrees of a level make one of the next.
void GradientReducer::fold_piece(size_t bucket) {
  if (mode_ != Mode::kTree || pieces_per_rank_ == 1) return;
  auto& levels = partial_[bucket];
  auto& grads = buckets_.flat()[bucket].grads;
  size_t level = 0;
  for (int number = piece_; (number & 1) != 0; number >>= 1, ++level) grads.add_(levels[level]);
  if (piece_ + 1 == pieces_per_rank_) return;  // grads holds the whole subtree of this rank.
  if (level >= levels.size()) levels.resize(level + 1);
  if (!levels[level].defined()) levels[level] = torch::empty_like(grads);
  levels[level].copy_(grads);
}

void GradientReducer::start(size_t bucket) {
  auto& grads = buckets_.flat()[bucket].grads;
  if (comm_.world_size() == 1) return;
  if (mode_ == Mode::kAllReduce) {
    works_[bucket] = comm_.all_reduce(view_of(grads), ReduceOp::kSum);
  } else {
    works_[bucket] = comm_.all_to_all(view_of(grads), view_of(exchanged_[bucket]));
  }
}

void GradientReducer::finish_tree(size_t bucket) {
  auto& grads = buckets_.flat()[bucket].grads;
  const int64_t slice = grads.numel() / comm_.world_size();
  const auto sum = tree_sum(exchanged_[bucket].view({comm_.world_size(), slice}));
  auto mine = grads.narrow(0, slice * comm_.rank(), slice);
  mine.copy_(sum);
  works_[bucket] = comm_.all_gather(view_of(mine), view_of(grads));
}

void GradientReducer::wait() {
  const torch::NoGradGuard no_grad;
  check(next_bucket_ == pending_.size(), "every bucket was reduced");
  armed_ = false;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t b = 0; b < works_.size(); ++b) {
    if (!works_[b]) continue;
    works_[b]->wait();
    if (mode_ == Mode::kTree) finish_tree(b);
  }
  if (mode_ == Mode::kTree) {
    for (auto& work : works_) {
      if (work) work->wait();
    }
  }
  for (auto& work : works_) work.reset();
  exposed_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
}  // namespace trireme
