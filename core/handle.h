#pragma once
#include <utility>

namespace trireme {

// Owns a C handle. `Deleter` has `static T null()` and `static void destroy(T) noexcept`.
template <typename T, typename Deleter>
class UniqueHandle {
 public:
  UniqueHandle() = default;
  explicit UniqueHandle(T handle) noexcept : handle_(handle) {}
  ~UniqueHandle() { reset(); }
  UniqueHandle(UniqueHandle&& other) noexcept : handle_(other.release()) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueHandle(const UniqueHandle&) = delete;
  UniqueHandle& operator=(const UniqueHandle&) = delete;

  [[nodiscard]] T get() const noexcept { return handle_; }
  [[nodiscard]] T release() noexcept { return std::exchange(handle_, Deleter::null()); }
  void reset(T handle = Deleter::null()) noexcept {
    if (handle_ != Deleter::null()) Deleter::destroy(handle_);
    handle_ = handle;
  }
  explicit operator bool() const noexcept { return handle_ != Deleter::null(); }

 private:
  T handle_ = Deleter::null();
};
}  // namespace trireme
