#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace trireme {

enum class ScalarType { kFloat32, kFloat64, kInt64, kUInt8, kBFloat16, kFloat16 };
[[nodiscard]] size_t size_bytes_of(ScalarType type) noexcept;

// A typed, non-owning range of elements, in host memory or (with NCCL) device memory.
struct BufferView {
  void* data = nullptr;
  int64_t num_elements = 0;
  ScalarType type = ScalarType::kFloat32;

  template <typename T>
  [[nodiscard]] static BufferView of(std::span<T> values) noexcept {
    return {values.data(), static_cast<int64_t>(values.size()), type_of<T>()};
  }
  template <typename T>
  [[nodiscard]] static BufferView of(std::vector<T>& values) noexcept {
    return of(std::span<T>(values));
  }
  [[nodiscard]] size_t size_bytes() const noexcept {
    return static_cast<size_t>(num_elements) * size_bytes_of(type);
  }
  [[nodiscard]] BufferView slice(int64_t first, int64_t count) const noexcept {
    return {static_cast<std::byte*>(data) + static_cast<size_t>(first) * size_bytes_of(type), count,
            type};
  }

  template <typename T>
  static constexpr ScalarType type_of() noexcept {
    if constexpr (std::is_same_v<T, float>) {
      return ScalarType::kFloat32;
    } else if constexpr (std::is_same_v<T, double>) {
      return ScalarType::kFloat64;
    } else if constexpr (std::is_same_v<T, int64_t>) {
      return ScalarType::kInt64;
    } else {
      static_assert(sizeof(T) == 1, "no ScalarType for this element");
      return ScalarType::kUInt8;
    }
  }
};
}  // namespace trireme
