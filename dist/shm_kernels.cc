#include "dist/shm_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"

// The loops below are worth vectorising at -O2 as well.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

namespace trireme {
namespace {
constexpr int64_t kBlockBytes = 8192;

template <ReduceOp op, typename T>
void accumulate(T* __restrict__ total, const T* __restrict__ values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (op == ReduceOp::kSum) {
      total[i] = static_cast<T>(total[i] + values[i]);
    } else if constexpr (op == ReduceOp::kMax) {
      total[i] = total[i] < values[i] ? values[i] : total[i];
    } else {
      total[i] = values[i] < total[i] ? values[i] : total[i];
    }
  }
}

template <ReduceOp op, typename T>
void reduce(std::span<const std::byte* const> sources, std::span<std::byte* const> destinations,
            int64_t num_elements) {
  constexpr int64_t kBlock = kBlockBytes / static_cast<int64_t>(sizeof(T));
  alignas(64) std::array<T, kBlock> total;
  for (int64_t first = 0; first < num_elements; first += kBlock) {
    const int64_t count = std::min(kBlock, num_elements - first);
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    std::memcpy(total.data(), reinterpret_cast<const T*>(sources[0]) + first, bytes);
    for (const auto* source : sources.subspan(1)) {
      accumulate<op>(total.data(), reinterpret_cast<const T*>(source) + first, count);
    }
    for (auto* destination : destinations) {
      std::memcpy(reinterpret_cast<T*>(destination) + first, total.data(), bytes);
    }
  }
}

template <typename T>
void reduce_by(ReduceOp op, std::span<const std::byte* const> sources,
               std::span<std::byte* const> destinations, int64_t num_elements) {
  switch (op) {
    case ReduceOp::kSum:
      return reduce<ReduceOp::kSum, T>(sources, destinations, num_elements);
    case ReduceOp::kMax:
      return reduce<ReduceOp::kMax, T>(sources, destinations, num_elements);
    case ReduceOp::kMin:
      return reduce<ReduceOp::kMin, T>(sources, destinations, num_elements);
  }
}
}  // namespace

void reduce_buffers(ReduceOp op, ScalarType type, std::span<const std::byte* const> sources,
                    std::span<std::byte* const> destinations, int64_t num_elements) {
  switch (type) {
    case ScalarType::kFloat32:
      return reduce_by<float>(op, sources, destinations, num_elements);
    case ScalarType::kFloat64:
      return reduce_by<double>(op, sources, destinations, num_elements);
    case ScalarType::kInt64:
      return reduce_by<int64_t>(op, sources, destinations, num_elements);
    case ScalarType::kUInt8:
      return reduce_by<uint8_t>(op, sources, destinations, num_elements);
    case ScalarType::kBFloat16:
    case ScalarType::kFloat16:
      break;
  }
  check(false, "half types are not reduced in shared memory");
}
}  // namespace trireme
