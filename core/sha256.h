#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace trireme {

// Incremental SHA-256 (FIPS 180-4), by OpenSSL.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  [[nodiscard]] std::string hex_digest();  // 64 lower-case digits; ends the computation.

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

[[nodiscard]] std::string sha256_of_text(std::string_view text);
// Throws InputError when the file cannot be read.
[[nodiscard]] std::string sha256_of_file(const std::filesystem::path& file);
}  // namespace trireme
