#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/models/tokenizer_bpe.h"

namespace trireme {

// A token that is found in the text before words are split.
struct AddedToken {
  std::string content;
  int64_t id = -1;
  enum class Match { kRaw, kNormalized };
  Match match = Match::kRaw;  // In the text as given, or after composition and lower-casing.
};

// What a tokenizer folder holds, as transformers 5 understands it: docs/encoders.md.
struct TokenizerFiles {
  BytePairEncoder::Vocabulary vocabulary;
  BytePairEncoder::Merges merges;
  std::string source;  // The file of the merges.
  std::vector<AddedToken> added_tokens;
  int64_t begin_id = 0;
  int64_t end_id = 0;
  int64_t pad_id = 0;
  int64_t unknown_id = 0;
  int64_t max_length = 77;
};

// Reads tokenizer.json, or where that is absent vocab.json and merges.txt, then
// tokenizer_config.json and special_tokens_map.json where present. Throws InputError.
[[nodiscard]] TokenizerFiles read_tokenizer_files(const std::filesystem::path& folder);
}  // namespace trireme
