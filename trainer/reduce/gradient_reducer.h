#pragma once
#include <cstdint>
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
// piece and a full bucket's all-reduce starts at once, in bucket order. In tree mode (`shards`)
// pieces are summed by the fixed binary tree over piece numbers: the subtree inside this rank
// locally, the rest by exchanging slices, which gives the same bits at any power of two of ranks
// (docs/reproducible.md). Collective in begin_step()..wait(). Use from one thread.
class GradientReducer {
 public:
  enum class Mode { kAllReduce, kTree };
  // `buckets` and `comm` outlive the reducer. REQUIRES: kTree: pieces_per_rank and world size are
  // powers of two; kAllReduce: pieces_per_rank is 1.
  GradientReducer(Communicator& comm, GradientBuckets& buckets, Mode mode, int pieces_per_rank);

  void begin_step();  // Zeroes the gradients.
  void begin_piece();
  void arm();   // The next backward ends the piece.
  void wait();  // Gradients are now the sum over all pieces of all ranks.
  // Seconds that wait() blocked in the last step: communication that backward did not hide.
  [[nodiscard]] double exposed_seconds() const noexcept { return exposed_seconds_; }

 private:
  void on_gradient(size_t bucket);
  void launch_ready_buckets();
  void fold_piece(size_t bucket);
  void start(size_t bucket);
  void finish_tree(size_t bucket);

  Communicator& comm_;
  GradientBuckets& buckets_;
  Mode mode_;
  int pieces_per_rank_;
  int piece_ = -1;
  bool armed_ = false;
  std::vector<int> pending_;  // Per bucket: gradients still to come in this backward.
  size_t next_bucket_ = 0;    // Launched strictly in index order, on every rank.
  std::vector<std::unique_ptr<Work>> works_;
  // Tree mode: per bucket, partial sums of complete subtrees of this rank, by level; and the slices
  // that came from the other ranks.
  std::vector<std::vector<at::Tensor>> partial_;
  std::vector<at::Tensor> exchanged_;
  double exposed_seconds_ = 0.0;
  GradHooks hooks_;
};

// Sums the rows of `parts` (n, m) by a binary tree over rows; n is a power of two. (m)
[[nodiscard]] at::Tensor tree_sum(const at::Tensor& parts);

// A view of a tensor's memory for collectives. REQUIRES: contiguous, float32.
[[nodiscard]] BufferView view_of(const at::Tensor& tensor);
}  // namespace trireme
