#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trainer/models/clip_text.h"
#include "trainer/models/pretrained_folder.h"
#include "trainer/models/tokenizer_bpe.h"
#include "trainer/models/tokenizer_files.h"
#include "trainer/models/tokenizer_unicode.h"

namespace trireme {
namespace {
using Match = AddedToken::Match;

// Finds added tokens in a text: the leftmost, and of those the longest.
class TokenFinder {
 public:
  void add(std::u32string content, int64_t id) {
    if (content.empty()) return;
    auto& tokens = by_first_[content.front()];
    tokens.emplace_back(std::move(content), id);
    std::ranges::stable_sort(tokens, std::greater{}, [](const auto& t) { return t.first.size(); });
  }

  // Calls `text_found` for what lies between tokens (never empty) and `token_found` for their ids.
  void scan(std::u32string_view text, const std::function<void(std::u32string_view)>& text_found,
            const std::function<void(int64_t)>& token_found) const {
    size_t begin = 0;
    for (size_t i = 0; i < text.size();) {
      const auto* token = at(text.substr(i));
      if (token == nullptr) {
        ++i;
        continue;
      }
      if (i > begin) text_found(text.substr(begin, i - begin));
      token_found(token->second);
      i += token->first.size();
      begin = i;
    }
    if (begin < text.size()) text_found(text.substr(begin));
  }

 private:
  using Token = std::pair<std::u32string, int64_t>;
  const Token* at(std::u32string_view text) const {
    const auto found = by_first_.find(text.front());
    if (found == by_first_.end()) return nullptr;
    for (const auto& token : found->second) {
      if (text.starts_with(token.first)) return &token;
    }
    return nullptr;
  }
  std::unordered_map<char32_t, std::vector<Token>> by_first_;  // Longest first.
};

size_t run_length(std::u32string_view text, TextClass wanted) {
  const auto end = std::ranges::find_if(text, [=](char32_t c) { return text_class(c) != wanted; });
  return static_cast<size_t>(end - text.begin());
}

// The length of the contraction that `text` begins with, or 0.
size_t contraction_length(std::u32string_view text) {
  for (const std::u32string_view ending : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"}) {
    if (text.starts_with(ending)) return ending.size();
  }
  return 0;
}

// The length of the piece that `text`, which is normalised, begins with: a contraction, letters,
// one number, or anything else that is not white space. 0 for white space.
size_t piece_length(std::u32string_view text) {
  if (const size_t length = contraction_length(text)) return length;
  switch (text_class(text.front())) {
    case TextClass::kLetter:
      return run_length(text, TextClass::kLetter);
    case TextClass::kNumber:
      return 1;
    case TextClass::kOther:
      return run_length(text, TextClass::kOther);
    case TextClass::kSpace:
      return 0;
  }
  return 0;
}

// A special token written in a text where it is not found as such keeps its marks apart from its
// neighbours: the words `<|`, `startoftext` and `|>`.
std::vector<std::u32string_view> spelled_out_token(std::u32string_view text) {
  for (const std::u32string_view name : {U"startoftext", U"endoftext"}) {
    std::u32string_view rest = text;
    if (!rest.starts_with(U"<|")) continue;
    rest.remove_prefix(2);
    if (!rest.starts_with(name)) continue;
    rest.remove_prefix(name.size());
    if (rest.starts_with(U"|>")) return {text.substr(0, 2), name, rest.substr(0, 2)};
  }
  return {};
}

class ClipTokenizerImpl final : public ClipTokenizer {
 public:
  explicit ClipTokenizerImpl(const TokenizerFiles& files)
      : encoder_(files.vocabulary, files.merges, files.unknown_id, files.source),
        begin_id_(files.begin_id),
        end_id_(files.end_id),
        pad_id_(files.pad_id),
        max_length_(files.max_length) {
    for (const auto& token : files.added_tokens) {
      const std::u32string content = decode_utf8(token.content);
      if (token.match == Match::kRaw) {
        raw_tokens_.add(content, token.id);
      } else {
        normalized_tokens_.add(normalizer_.normalize(content), token.id);
      }
    }
  }

  std::vector<int64_t> tokenize(std::string_view text) const override {
    std::vector<int64_t> ids;
    const auto add_id = [&](int64_t id) { ids.push_back(id); };
    const auto add_words = [&](std::u32string_view part) { encode_words(part, ids); };
    raw_tokens_.scan(
        decode_utf8(text),
        [&](std::u32string_view part) {
          normalized_tokens_.scan(normalizer_.normalize(part), add_words, add_id);
        },
        add_id);
    return ids;
  }

  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids = tokenize(text);
    const auto room = static_cast<size_t>(max_length_ - 2);
    if (ids.size() > room) ids.resize(room);
    ids.insert(ids.begin(), begin_id_);
    ids.push_back(end_id_);
    ids.resize(static_cast<size_t>(max_length_), pad_id_);
    return ids;
  }

  int64_t max_length() const noexcept override { return max_length_; }

 private:
  void encode_words(std::u32string_view text, std::vector<int64_t>& ids) const {
    while (!text.empty()) {
      if (const auto words = spelled_out_token(text); !words.empty()) {
        for (const auto word : words) {
          encode_word(word, ids);
          text.remove_prefix(word.size());
        }
        continue;
      }
      const size_t length = piece_length(text);
      encode_word(text.substr(0, length), ids);
      text.remove_prefix(std::max<size_t>(length, 1));
    }
  }

  void encode_word(std::u32string_view word, std::vector<int64_t>& ids) const {
    std::string bytes;
    for (const char32_t c : word) append_utf8(c, bytes);
    encoder_.encode(bytes, ids);
  }

  TextNormalizer normalizer_;
  BytePairEncoder encoder_;
  TokenFinder raw_tokens_;
  TokenFinder normalized_tokens_;
  int64_t begin_id_;
  int64_t end_id_;
  int64_t pad_id_;
  int64_t max_length_;
};
}  // namespace

std::unique_ptr<ClipTokenizer> ClipTokenizer::load(const std::filesystem::path& folder) {
  const char* const marks[] = {"tokenizer.json", "vocab.json"};
  for (const auto* mark : marks) {
    for (const auto& place : {folder / "tokenizer", folder}) {
      std::error_code ignored;
      if (std::filesystem::exists(place / mark, ignored)) {
        return std::make_unique<ClipTokenizerImpl>(read_tokenizer_files(place));
      }
    }
  }
  return std::make_unique<ClipTokenizerImpl>(
      read_tokenizer_files(find_part_folder(folder, "tokenizer", "vocab.json")));
}
}  // namespace trireme
