#include "trainer/models/tokenizer_unicode.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include "core/error.h"

namespace trireme {
namespace {
struct Range {
  char32_t first;
  char32_t last;
};

// What Unicode 15.1 and 16 added to the letters and numbers of Unicode 15.
constexpr std::array<Range, 22> kNewLetters = {
    {{0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3},
     {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389},
     {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7},
     {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0}, {0x13460, 0x143fa},
     {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed},
     {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d}}};
constexpr std::array<Range, 7> kNewNumbers = {{{0x10d40, 0x10d49},
                                               {0x116d0, 0x116e3},
                                               {0x11bf0, 0x11bf9},
                                               {0x16130, 0x16139},
                                               {0x16d70, 0x16d79},
                                               {0x1ccf0, 0x1ccf9},
                                               {0x1e5f1, 0x1e5fa}}};

// Capitals that Unicode 16 and 17 added, with the way to their small letters.
struct Capitals {
  char32_t first;
  char32_t last;
  int32_t offset;
};
constexpr std::array<Capitals, 10> kNewCapitals = {{{0x1c89, 0x1c89, 1},
                                                    {0xa7cb, 0xa7cb, -42343},
                                                    {0xa7cc, 0xa7cc, 1},
                                                    {0xa7ce, 0xa7ce, 1},
                                                    {0xa7d2, 0xa7d2, 1},
                                                    {0xa7d4, 0xa7d4, 1},
                                                    {0xa7da, 0xa7da, 1},
                                                    {0xa7dc, 0xa7dc, -42561},
                                                    {0x10d50, 0x10d65, 0x20},
                                                    {0x16ea0, 0x16eb8, 0x1b}}};

constexpr char32_t kCapitalIWithDot = 0x130;
constexpr char32_t kCombiningDotAbove = 0x307;

bool contains(std::span<const Range> ranges, char32_t c) {
  return std::ranges::any_of(ranges, [c](const Range& r) { return r.first <= c && c <= r.last; });
}

bool is_newer_than_unicode_15(char32_t c) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] == 0 || age[0] > 15 || (age[0] == 15 && age[1] > 0);
}

void append_lower(char32_t c, std::u32string& text) {
  if (c < 0x80) {
    text += c >= 'A' && c <= 'Z' ? c + 0x20 : c;
    return;
  }
  if (c == kCapitalIWithDot) {
    text += {U'i', kCombiningDotAbove};
    return;
  }
  if (!is_newer_than_unicode_15(c)) {
    text += static_cast<char32_t>(u_tolower(static_cast<UChar32>(c)));
    return;
  }
  const auto* found = std::ranges::find_if(
      kNewCapitals, [c](const Capitals& r) { return r.first <= c && c <= r.last; });
  text += found == kNewCapitals.end()
              ? c
              : static_cast<char32_t>(static_cast<int64_t>(c) + found->offset);
}
}  // namespace

TextClass text_class(char32_t c) {
  const auto code = static_cast<UChar32>(c);
  if (c >= 0x80 && is_newer_than_unicode_15(c)) {
    if (contains(kNewLetters, c)) return TextClass::kLetter;
    return contains(kNewNumbers, c) ? TextClass::kNumber : TextClass::kOther;
  }
  const uint32_t category = U_GET_GC_MASK(code);
  if ((category & U_GC_L_MASK) != 0) return TextClass::kLetter;
  if ((category & U_GC_N_MASK) != 0) return TextClass::kNumber;
  return u_isUWhiteSpace(code) ? TextClass::kSpace : TextClass::kOther;
}

std::u32string decode_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int64_t>(text.size());
  std::u32string result;
  result.reserve(text.size());
  for (int64_t i = 0; i < size;) {
    UChar32 c = 0;
    U8_NEXT_OR_FFFD(bytes, i, size, c);  // NOLINT(bugprone-inc-dec-in-conditions): in the macro
    result += static_cast<char32_t>(c);
  }
  return result;
}

void append_utf8(char32_t c, std::string& text) {
  std::array<uint8_t, U8_MAX_LENGTH> bytes{};
  int32_t length = 0;
  U8_APPEND_UNSAFE(bytes.data(), length, c);
  text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(length));
}

struct TextNormalizer::Composer {
  icu::UnicodeSet known;  // Newer characters neither compose nor reorder.
  std::unique_ptr<icu::FilteredNormalizer2> normalizer;
};

TextNormalizer::TextNormalizer() : composer_(std::make_unique<Composer>()) {
  UErrorCode status = U_ZERO_ERROR;
  composer_->known.applyPattern(u"[:age=9.0:]", status);
  composer_->known.freeze();
  const auto* nfc = icu::Normalizer2::getNFCInstance(status);
  if (U_FAILURE(status) != 0) {
    throw InternalError(std::string("ICU's normalisation data cannot be used: ") +
                        u_errorName(status) + ". Install ICU's data for its library.");
  }
  composer_->normalizer = std::make_unique<icu::FilteredNormalizer2>(*nfc, composer_->known);
}

TextNormalizer::~TextNormalizer() = default;

std::u32string TextNormalizer::normalize(std::u32string_view text) const {
  std::u32string composed(text);
  if (std::ranges::any_of(text, [](char32_t c) { return c >= 0x80; })) {
    // ICU counts in 32 bits, UTF-16 takes up to two units a character.
    if (text.size() > std::numeric_limits<int32_t>::max() / 4) {
      throw InputError("A text of " + std::to_string(text.size()) +
                       " characters is too long to be tokenized; shorten the caption.");
    }
    static_assert(sizeof(UChar32) == sizeof(char32_t));
    const auto* codes = reinterpret_cast<const UChar32*>(text.data());
    const auto utf16 = icu::UnicodeString::fromUTF32(codes, static_cast<int32_t>(text.size()));
    UErrorCode status = U_ZERO_ERROR;
    icu::UnicodeString result;
    composer_->normalizer->normalize(utf16, result, status);
    composed.resize(static_cast<size_t>(result.countChar32()));
    result.toUTF32(reinterpret_cast<UChar32*>(composed.data()),
                   static_cast<int32_t>(composed.size()), status);
    if (U_FAILURE(status) != 0 && status != U_STRING_NOT_TERMINATED_WARNING) {
      throw InternalError(std::string("ICU cannot normalise a text: ") + u_errorName(status) + ".");
    }
  }
  std::u32string normal;
  normal.reserve(composed.size());
  bool in_space = false;
  for (const char32_t c : composed) {
    const bool space = text_class(c) == TextClass::kSpace;
    if (!space) {
      append_lower(c, normal);
    } else if (!in_space) {
      normal += U' ';
    }
    in_space = space;
  }
  return normal;
}
}  // namespace trireme
