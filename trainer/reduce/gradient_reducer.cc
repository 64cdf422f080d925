#include "trainer/reduce/gradient_reducer.h"

#include <bit>
#include <chrono>

#include "core/error.h"
#include "trainer/torch_api.h"

namespace trireme {
namespace {
// How many later buckets are launched before an exchanged one is summed and sent on: by then it has
// mostly arrived, so that backward is not held up, and every rank does so at the same point.
constexpr size_t kExchangesAhead = 2;

ScalarType type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ScalarType::kFloat32;
    case at::kDouble:
      return ScalarType::kFloat64;
    case at::kBFloat16:
      return ScalarType::kBFloat16;
    case at::kHalf:
      return ScalarType::kFloat16;
    default:
      throw InternalError("a tensor of a type that does not travel");
  }
}

at::ScalarType torch_type_of(ScalarType type) {
  return type == ScalarType::kBFloat16 ? at::kBFloat16
                                       : (type == ScalarType::kFloat16 ? at::kHalf : at::kFloat);
}
}  // namespace

BufferView view_of(const at::Tensor& tensor) {
  check(tensor.is_contiguous(), "contiguous tensor");
  return {tensor.data_ptr(), tensor.numel(), type_of(tensor)};
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

GradientReducer::GradientReducer(Communicator& comm, GradientBuckets& buckets, Options options)
    : comm_(comm), buckets_(buckets), options_(options) {
  const size_t num_buckets = buckets_.flat().size();
  pending_.resize(num_buckets);
  works_.resize(num_buckets);
  partial_.resize(num_buckets);
  sent_.resize(num_buckets);
  exchanged_.resize(num_buckets);
  if (options_.mode == Mode::kTree) {
    const bool powers = std::has_single_bit(static_cast<unsigned>(options_.pieces_per_rank)) &&
                        std::has_single_bit(static_cast<unsigned>(comm.world_size()));
    check(powers && options_.wire == ScalarType::kFloat32,
          "tree reduction over powers of two, in float32");
  } else {
    check(options_.pieces_per_rank == 1, "one piece a rank without shards");
  }
  for (size_t b = 0; b < num_buckets; ++b) {
    if (exchanges()) {
      const auto& grads = buckets_.flat()[b].grads;
      const auto wire = torch_type_of(options_.wire);
      sent_[b] = wire == at::kFloat ? grads : torch::empty_like(grads, wire);
      exchanged_[b] = torch::empty_like(grads, wire);
    }
    const auto& segments = buckets_.flat()[b].segments;
    for (size_t i = 0; i < segments.size(); ++i) {
      const FlatRange range{segments[i].offset, segments[i].offset + segments[i].num_elements};
      hooks_.add(buckets_.parameters(b)[i], [this, b, range] { on_gradient(b, range); });
    }
  }
}

// Slices are exchanged and summed here, instead of by the communicator.
bool GradientReducer::exchanges() const noexcept {
  return comm_.world_size() > 1 &&
         (options_.mode == Mode::kTree || options_.wire != ScalarType::kFloat32);
}

at::Tensor GradientReducer::own_slice(const at::Tensor& whole) const {
  const int64_t slice = whole.numel() / comm_.world_size();
  return whole.narrow(0, slice * comm_.rank(), slice);
}

void GradientReducer::begin_step() {
  buckets_.zero_grad();
  piece_ = -1;
  next_bucket_ = 0;
  next_finish_ = 0;
  exposed_seconds_ = 0.0;
}

void GradientReducer::begin_piece() {
  if (piece_ >= 0) buckets_.zero_grad();
  ++piece_;
  armed_ = false;
  check(piece_ < options_.pieces_per_rank, "more pieces in a step than planned");
}

void GradientReducer::arm() {
  armed_ = true;
  for (size_t b = 0; b < pending_.size(); ++b) {
    pending_[b] = static_cast<int>(buckets_.parameters(b).size());
  }
}

void GradientReducer::on_gradient(size_t bucket, FlatRange parameter) {
  if (!armed_) return;
  const torch::NoGradGuard no_grad;
  const auto& grads = buckets_.flat()[bucket].grads;
  if (observer_ && grads.is_cpu()) observer_(bucket, parameter);
  if (--pending_[bucket] > 0) return;
  if (observer_ && !grads.is_cpu()) observer_(bucket, {0, grads.numel()});
  fold_piece(bucket);
  if (piece_ + 1 == options_.pieces_per_rank) launch_ready_buckets();
}

void GradientReducer::launch_ready_buckets() {
  while (next_bucket_ < pending_.size() && pending_[next_bucket_] == 0) {
    if (exchanges() && next_bucket_ >= next_finish_ + kExchangesAhead) {
      finish_exchange(next_finish_++);
    }
    start(next_bucket_++);
  }
}

// Like adding 1 to a binary counter: two complete subtrees of a level make one of the next.
void GradientReducer::fold_piece(size_t bucket) {
  if (options_.mode != Mode::kTree || options_.pieces_per_rank == 1) return;
  auto& levels = partial_[bucket];
  auto& grads = buckets_.flat()[bucket].grads;
  size_t level = 0;
  for (int number = piece_; (number & 1) != 0; number >>= 1, ++level) grads.add_(levels[level]);
  if (piece_ + 1 == options_.pieces_per_rank) return;  // grads holds this rank's whole subtree.
  if (level >= levels.size()) levels.resize(level + 1);
  if (!levels[level].defined()) levels[level] = torch::empty_like(grads);
  levels[level].copy_(grads);
}

void GradientReducer::start(size_t bucket) {
  if (comm_.world_size() == 1) return;
  const auto& grads = buckets_.flat()[bucket].grads;
  if (exchanges()) {
    if (!sent_[bucket].is_same(grads)) sent_[bucket].copy_(grads);
    works_[bucket] = comm_.all_to_all(view_of(sent_[bucket]), view_of(exchanged_[bucket]));
  } else if (options_.result == Result::kOwnSlice) {
    works_[bucket] = comm_.reduce_scatter(view_of(grads), view_of(own_slice(grads)));
  } else {
    works_[bucket] = comm_.all_reduce(view_of(grads), ReduceOp::kSum);
  }
}

void GradientReducer::finish_exchange(size_t bucket) {
  wait_for(*works_[bucket]);
  works_[bucket].reset();
  const auto& grads = buckets_.flat()[bucket].grads;
  const auto parts = exchanged_[bucket].view({comm_.world_size(), -1});
  own_slice(grads).copy_(options_.mode == Mode::kTree ? tree_sum(parts)
                                                      : parts.sum(0, false, at::kFloat));
  if (options_.result == Result::kOwnSlice) return;
  const auto mine = own_slice(sent_[bucket]);
  if (!sent_[bucket].is_same(grads)) mine.copy_(own_slice(grads));
  works_[bucket] = comm_.all_gather(view_of(mine), view_of(sent_[bucket]));
}

void GradientReducer::wait_for(Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work.wait();
  exposed_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void GradientReducer::wait() {
  const torch::NoGradGuard no_grad;
  check(next_bucket_ == pending_.size(), "every bucket was reduced");
  armed_ = false;
  if (exchanges()) {
    while (next_finish_ < works_.size()) finish_exchange(next_finish_++);
  }
  for (size_t b = 0; b < works_.size(); ++b) {
    if (!works_[b]) continue;
    wait_for(*works_[b]);
    works_[b].reset();
    const auto& grads = buckets_.flat()[b].grads;
    if (exchanges() && !sent_[b].is_same(grads)) grads.copy_(sent_[b]);
  }
}
}  // namespace trireme
