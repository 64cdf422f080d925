#include "dist/shm_collectives.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "dist/shm_kernels.h"

namespace trireme {
namespace {
constexpr int64_t kCacheLineBytes = 64;

struct Range {
  int64_t first = 0;
  int64_t count = 0;
};

// Rank `rank`'s share of `total` elements, cut at cache lines.
Range share_of(int64_t total, ScalarType type, int rank, int num_ranks) {
  const int64_t line = kCacheLineBytes / static_cast<int64_t>(size_bytes_of(type));
  const int64_t lines = (total + line - 1) / line;
  const int64_t first = std::min(total, lines * rank / num_ranks * line);
  const int64_t last = std::min(total, lines * (rank + 1) / num_ranks * line);
  return {first, last - first};
}

std::byte* at(std::byte* base, ScalarType type, int64_t element) {
  return base + static_cast<size_t>(element) * size_bytes_of(type);
}

std::vector<std::byte*> shifted(std::span<std::byte* const> bases, ScalarType type,
                                int64_t element) {
  std::vector<std::byte*> result;
  for (auto* base : bases) result.push_back(at(base, type, element));
  return result;
}

void copy(void* to, const void* from, int64_t num_elements, ScalarType type) {
  if (to != from && num_elements > 0) {
    std::memmove(to, from, static_cast<size_t>(num_elements) * size_bytes_of(type));
  }
}

void reduce_to(ReduceOp op, ScalarType type, const std::vector<std::byte*>& sources,
               std::span<std::byte* const> destinations, int64_t num_elements) {
  const std::vector<const std::byte*> inputs(sources.begin(), sources.end());
  reduce_buffers(op, type, inputs, destinations, num_elements);
}

std::string_view name_of(ShmRequest::Kind kind) {
  constexpr std::string_view kNames[] = {"all_reduce", "broadcast", "all_gather", "reduce_scatter",
                                         "all_to_all"};
  return kNames[static_cast<int>(kind)];
}
}  // namespace

int64_t ShmRegistry::add(std::shared_ptr<ShmSegment> segment) {
  const std::lock_guard lock(mutex_);
  segments_.emplace(next_, std::move(segment));
  return next_++;
}

void ShmRegistry::remove(int64_t number) noexcept {
  const std::lock_guard lock(mutex_);
  segments_.erase(number);
}

std::shared_ptr<ShmSegment> ShmRegistry::find(int64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto found = segments_.find(number);
  return found == segments_.end() ? nullptr : found->second;
}

void ShmRegistry::locate(const BufferView& view, int rank, ShmRequest& request) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [number, segment] : segments_) {
    const auto offset = segment->offset_of(view.data, view.size_bytes(), rank);
    if (!offset) continue;
    request.segment = number;
    request.offset_bytes = *offset;
    return;
  }
}

ShmCollectives::ShmCollectives(ShmGroup& group, std::shared_ptr<ShmRegistry> registry,
                               std::unique_ptr<ShmSegment> scratch, size_t scratch_bytes)
    : group_(group),
      registry_(std::move(registry)),
      scratch_(std::move(scratch)),
      half_bytes_(scratch_bytes / 2 / kCacheLineBytes * kCacheLineBytes) {
  check(half_bytes_ >= static_cast<size_t>(kCacheLineBytes) * static_cast<size_t>(group.size()),
        "the scratch holds a cache line for every rank");
}

std::byte* ShmCollectives::half(int rank) const noexcept {
  return scratch_->part(rank) + half_ * half_bytes_;
}

std::vector<std::byte*> ShmCollectives::halves() const {
  std::vector<std::byte*> result;
  for (int rank = 0; rank < group_.size(); ++rank) result.push_back(half(rank));
  return result;
}

int64_t ShmCollectives::piece_elements(ScalarType type, int num_parts) const {
  return static_cast<int64_t>(half_bytes_ / size_bytes_of(type)) / num_parts;
}

void ShmCollectives::run(const ShmRequest& request, BufferView in, BufferView out) {
  const std::string_view what = name_of(request.kind);
  group_.publish(request);
  group_.barrier(what);
  const std::vector<std::byte*> inputs = resident_inputs(what);
  const auto op = static_cast<ReduceOp>(request.op);
  if (!inputs.empty()) {
    run_resident(request, inputs, in, out);
  } else {
    switch (request.kind) {
      case ShmRequest::Kind::kAllReduce:
        stage_all_reduce(op, in);
        break;
      case ShmRequest::Kind::kBroadcast:
        stage_broadcast(in, request.root);
        break;
      case ShmRequest::Kind::kAllGather:
        stage_all_gather(in, out);
        break;
      case ShmRequest::Kind::kReduceScatter:
        stage_reduce_scatter(in, out);
        break;
      case ShmRequest::Kind::kAllToAll:
        stage_all_to_all(in, out);
        break;
    }
  }
  group_.barrier(what);
  held_.clear();
}

std::vector<std::byte*> ShmCollectives::resident_inputs(std::string_view what) {
  const ShmRequest& first = group_.request_of(0);
  std::vector<std::byte*> inputs;
  for (int rank = 0; rank < group_.size(); ++rank) {
    const ShmRequest& request = group_.request_of(rank);
    if (!request.matches(first)) {
      throw InternalError("Ranks issued different collectives: rank 0 " + first.text() + ", rank " +
                          std::to_string(rank) + " " + request.text() + ".");
    }
    if (request.segment < 0) continue;
    auto segment = registry_->find(request.segment);
    check(segment != nullptr, "a shared buffer outlives the collectives on it");
    inputs.push_back(segment->part(rank) + request.offset_bytes);
    held_.push_back(std::move(segment));
  }
  if (inputs.size() < static_cast<size_t>(group_.size())) inputs.clear();
  return inputs;
}

void ShmCollectives::run_resident(const ShmRequest& request, std::span<std::byte* const> inputs,
                                  BufferView in, BufferView out) {
  const int rank = group_.rank();
  const ScalarType type = in.type;
  const auto op = static_cast<ReduceOp>(request.op);
  switch (request.kind) {
    case ShmRequest::Kind::kAllReduce: {
      const Range mine = share_of(in.num_elements, type, rank, group_.size());
      const auto shares = shifted(inputs, type, mine.first);
      return reduce_to(op, type, shares, shares, mine.count);
    }
    case ShmRequest::Kind::kBroadcast:
      return copy(in.data, inputs[static_cast<size_t>(request.root)], in.num_elements, type);
    case ShmRequest::Kind::kAllGather:
      for (int other = 0; other < group_.size(); ++other) {
        const int64_t first = in.num_elements * other;
        copy(out.slice(first, 0).data, inputs[static_cast<size_t>(other)], in.num_elements, type);
      }
      return;
    case ShmRequest::Kind::kReduceScatter: {
      const auto parts = shifted(inputs, type, out.num_elements * rank);
      auto* result = static_cast<std::byte*>(out.data);
      return reduce_to(ReduceOp::kSum, type, parts, {&result, 1}, out.num_elements);
    }
    case ShmRequest::Kind::kAllToAll: {
      const int64_t part = in.num_elements / group_.size();
      const auto parts = shifted(inputs, type, part * rank);
      for (int other = 0; other < group_.size(); ++other) {
        copy(out.slice(part * other, 0).data, parts[static_cast<size_t>(other)], part, type);
      }
      return;
    }
  }
}

void ShmCollectives::stage_all_reduce(ReduceOp op, BufferView buffer) {
  const int64_t piece = piece_elements(buffer.type, 1);
  for (int64_t first = 0; first < buffer.num_elements; first += piece, next_half()) {
    const int64_t count = std::min(piece, buffer.num_elements - first);
    std::byte* values = static_cast<std::byte*>(buffer.slice(first, 0).data);
    copy(half(group_.rank()), values, count, buffer.type);
    group_.barrier("all_reduce");
    // Each rank sums its share into its own scratch, where the others fetch it.
    const Range mine = share_of(count, buffer.type, group_.rank(), group_.size());
    const auto shares = shifted(halves(), buffer.type, mine.first);
    std::byte* result = shares[static_cast<size_t>(group_.rank())];
    reduce_to(op, buffer.type, shares, {&result, 1}, mine.count);
    group_.barrier("all_reduce");
    for (int owner = 0; owner < group_.size(); ++owner) {
      const Range theirs = share_of(count, buffer.type, owner, group_.size());
      copy(at(values, buffer.type, theirs.first), at(half(owner), buffer.type, theirs.first),
           theirs.count, buffer.type);
    }
  }
}

void ShmCollectives::stage_broadcast(BufferView buffer, int root) {
  const int64_t piece = piece_elements(buffer.type, 1);
  for (int64_t first = 0; first < buffer.num_elements; first += piece, next_half()) {
    const BufferView values = buffer.slice(first, std::min(piece, buffer.num_elements - first));
    if (group_.rank() == root) copy(half(root), values.data, values.num_elements, values.type);
    group_.barrier("broadcast");
    if (group_.rank() != root) copy(values.data, half(root), values.num_elements, values.type);
  }
}

void ShmCollectives::stage_all_gather(BufferView in, BufferView out) {
  const int64_t piece = piece_elements(in.type, 1);
  for (int64_t first = 0; first < in.num_elements; first += piece, next_half()) {
    const BufferView values = in.slice(first, std::min(piece, in.num_elements - first));
    copy(half(group_.rank()), values.data, values.num_elements, in.type);
    group_.barrier("all_gather");
    for (int other = 0; other < group_.size(); ++other) {
      copy(out.slice(in.num_elements * other + first, 0).data, half(other), values.num_elements,
           in.type);
    }
  }
}

void ShmCollectives::stage_reduce_scatter(BufferView in, BufferView out) {
  const int64_t piece = piece_elements(in.type, group_.size());
  // `out` may be this rank's part of `in`: a piece of it is written after that piece was staged.
  for (int64_t first = 0; first < out.num_elements; first += piece, next_half()) {
    const int64_t count = std::min(piece, out.num_elements - first);
    for (int owner = 0; owner < group_.size(); ++owner) {
      copy(at(half(group_.rank()), in.type, count * owner),
           in.slice(out.num_elements * owner + first, 0).data, count, in.type);
    }
    group_.barrier("reduce_scatter");
    const auto parts = shifted(halves(), in.type, count * group_.rank());
    auto* result = static_cast<std::byte*>(out.slice(first, 0).data);
    reduce_to(ReduceOp::kSum, in.type, parts, {&result, 1}, count);
  }
}

void ShmCollectives::stage_all_to_all(BufferView in, BufferView out) {
  const int64_t part = in.num_elements / group_.size();
  const int64_t piece = piece_elements(in.type, group_.size());
  for (int64_t first = 0; first < part; first += piece, next_half()) {
    const int64_t count = std::min(piece, part - first);
    for (int to = 0; to < group_.size(); ++to) {
      copy(at(half(group_.rank()), in.type, count * to), in.slice(part * to + first, 0).data, count,
           in.type);
    }
    group_.barrier("all_to_all");
    for (int from = 0; from < group_.size(); ++from) {
      copy(out.slice(part * from + first, 0).data, at(half(from), in.type, count * group_.rank()),
           count, in.type);
    }
  }
}
}  // namespace trireme
