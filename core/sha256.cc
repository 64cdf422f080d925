#include "core/sha256.h"

#include <algorithm>
#include <array>
#include <vector>

#include <openssl/evp.h>

#include "core/error.h"
#include "core/files.h"

namespace trireme {

struct Sha256::Context {
  struct Free {
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> evp{EVP_MD_CTX_new()};
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  check(context_->evp != nullptr &&
            EVP_DigestInit_ex(context_->evp.get(), EVP_sha256(), nullptr) == 1,
        "OpenSSL offers no SHA-256");
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(context_->evp.get(), bytes.data(), bytes.size()) == 1, "SHA-256 failed");
}

std::string Sha256::hex_digest() {
  std::array<unsigned char, 32> digest = {};
  check(EVP_DigestFinal_ex(context_->evp.get(), digest.data(), nullptr) == 1, "SHA-256 failed");
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string sha256_of_text(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return hash.hex_digest();
}

std::string sha256_of_file(const std::filesystem::path& path) {
  const File file = File::open_for_reading(path, "file");
  const uint64_t size_bytes = file.size_bytes();
  std::vector<std::byte> buffer(std::min<uint64_t>(size_bytes, uint64_t{1} << 20));
  Sha256 hash;
  for (uint64_t done = 0; done < size_bytes; done += buffer.size()) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), size_bytes - done));
    file.read_at(done, part);
    hash.update(part);
  }
  return hash.hex_digest();
}
}  // namespace trireme
