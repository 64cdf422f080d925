#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"
#include "trainer/reduce/grad_hooks.h"
#include "trainer/reduce/gradient_buckets.h"

namespace trireme {

// Sums the buckets' gradients over ranks while backward goes on.
//
// A step is begin_step(), then for each of the rank's pieces begin_piece() and its backwards, of
// which the piece's last is preceded by arm(); then wait(). In the default mode a rank has one
// piece and a full bucket's reduction starts at once, in bucket order. In tree mode (`shards`)
// pieces are summed by the fixed binary tree over piece numbers: the subtree inside this rank
// locally, the rest by exchanging slices, which gives the same bits at any power of two of ranks
// (docs/reproducible.md). Collective in begin_step()..wait(). Use from one thread.
class GradientReducer {
 public:
  enum class Mode { kSum, kTree };
  // Where the sum is due: on every rank, or of each bucket only the rank's own slice (the r-th of
  // as many equal parts as there are ranks; the rest is then undefined).
  enum class Result { kEverywhere, kOwnSlice };
  struct Options {
    Mode mode = Mode::kSum;
    Result result = Result::kEverywhere;
    int pieces_per_rank = 1;
    // What travels: float32, or half of the bytes (slices are still summed in float32, and rounded
    // once more where the sum travels).
    ScalarType wire = ScalarType::kFloat32;
  };
  // `buckets` and `comm` outlive the reducer. REQUIRES: kTree: pieces_per_rank and world size are
  // powers of two, and float32 travels; kSum: pieces_per_rank is 1.
  GradientReducer(Communicator& comm, GradientBuckets& buckets, Options options);

  // Called when this rank's gradient of a part of a bucket is whole for a piece, before it is added
  // to anything: for statistics of the piece. On the host a part is a parameter, whose gradient is
  // still in cache; on a device, where a call costs more than memory, a whole bucket. Parts come in
  // the order of backward.
  using PieceObserver = std::function<void(size_t bucket, FlatRange part)>;
  void observe_pieces(PieceObserver observer) { observer_ = std::move(observer); }

  void begin_step();  // Zeroes the gradients.
  void begin_piece();
  void arm();   // The next backward ends the piece.
  void wait();  // Gradients are now the sum over all pieces of all ranks.
  // Seconds that this rank stood still in the last step: communication that backward did not hide.
  [[nodiscard]] double exposed_seconds() const noexcept { return exposed_seconds_; }

 private:
  void on_gradient(size_t bucket, FlatRange parameter);
  void launch_ready_buckets();
  void fold_piece(size_t bucket);
  void start(size_t bucket);
  void finish_exchange(size_t bucket);
  void wait_for(Work& work);
  [[nodiscard]] bool exchanges() const noexcept;
  [[nodiscard]] at::Tensor own_slice(const at::Tensor& whole) const;

  Communicator& comm_;
  GradientBuckets& buckets_;
  Options options_;
  PieceObserver observer_;
  int piece_ = -1;
  bool armed_ = false;
  std::vector<int> pending_;  // Per bucket: gradients still to come in this backward.
  size_t next_bucket_ = 0;    // Launched strictly in index order, on every rank.
  size_t next_finish_ = 0;    // Exchanges are finished in the same order.
  std::vector<std::unique_ptr<Work>> works_;
  // Tree mode: per bucket, partial sums of complete subtrees of this rank, by level.
  std::vector<std::vector<at::Tensor>> partial_;
  // With exchanges: what travels, where that is not the gradient itself, and the slices that came.
  std::vector<at::Tensor> sent_;
  std::vector<at::Tensor> exchanged_;
  double exposed_seconds_ = 0.0;
  GradHooks hooks_;
};

// Sums the rows of `parts` (n, m) by a binary tree over rows; n is a power of two. (m)
[[nodiscard]] at::Tensor tree_sum(const at::Tensor& parts);

// A view of a tensor's memory for collectives. REQUIRES: contiguous; float32, float64, bf16 or
// fp16.
[[nodiscard]] BufferView view_of(const at::Tensor& tensor);
}  // namespace trireme
