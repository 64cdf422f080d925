#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

// Serialises protocol-buffer messages field by field (protobuf.dev, "Encoding"): LibTorch bundles
// headers of protobuf that a system's library would meet. A message is a field of another by
// text(field, inner.bytes()).
class ProtobufWriter {
 public:
  ProtobufWriter& integer(uint32_t field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  ProtobufWriter& float64(uint32_t field, double value) {
    key(field, 1);
    little_endian(std::bit_cast<uint64_t>(value), 8);
    return *this;
  }
  ProtobufWriter& float32(uint32_t field, float value) {
    key(field, 5);
    little_endian(std::bit_cast<uint32_t>(value), 4);
    return *this;
  }
  ProtobufWriter& text(uint32_t field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }

 private:
  void key(uint32_t field, uint32_t wire_type) { varint(field << 3 | wire_type); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  void little_endian(uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_ += static_cast<char>(value >> (8 * i));
  }

  std::string bytes_;
};
}  // namespace trireme
