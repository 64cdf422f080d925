#pragma once
#include <memory>
#include <string>
#include <string_view>

// What CLIP's tokenizer needs of Unicode. Results are those of the libraries under transformers 5:
// composition as of Unicode 9, character classes as of Unicode 16, lower case as of Unicode 17,
// whatever version the system's ICU (at least Unicode 15) has.
namespace trireme {

enum class TextClass { kLetter, kNumber, kSpace, kOther };
[[nodiscard]] TextClass text_class(char32_t c);

// Each maximal invalid part becomes U+FFFD.
[[nodiscard]] std::u32string decode_utf8(std::string_view text);
void append_utf8(char32_t c, std::string& text);

// Composes (NFC), makes every run of white space one space, then lower-cases. Const methods are
// thread-safe.
class TextNormalizer {
 public:
  TextNormalizer();
  ~TextNormalizer();
  TextNormalizer(const TextNormalizer&) = delete;
  TextNormalizer& operator=(const TextNormalizer&) = delete;
  [[nodiscard]] std::u32string normalize(std::u32string_view text) const;

 private:
  struct Composer;
  std::unique_ptr<Composer> composer_;
};
}  // namespace trireme
