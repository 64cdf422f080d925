#include "dist/buffer_view.h"

namespace trireme {

size_t size_bytes_of(ScalarType type) noexcept {
  switch (type) {
    case ScalarType::kFloat64:
    case ScalarType::kInt64:
      return 8;
    case ScalarType::kFloat32:
      return 4;
    case ScalarType::kBFloat16:
    case ScalarType::kFloat16:
      return 2;
    case ScalarType::kUInt8:
      return 1;
  }
  return 1;
}
}  // namespace trireme
