#include "trainer/models/tokenizer_bpe.h"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "trainer/models/tokenizer_unicode.h"

namespace trireme {
namespace {
constexpr std::string_view kWordEnd = "</w>";
constexpr size_t kMaxCachedBytes = 64;
constexpr size_t kMaxCachedWords = 32768;
constexpr int64_t kGone = -1;

// The vocabulary writes a byte as a printable character: itself where it is one in Latin-1, else
// the next free character from U+0100 on.
std::string symbol_of_byte(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  char32_t symbol = static_cast<char32_t>(byte);
  if (!printable(byte)) {
    symbol = 0x100;
    for (int b = 0; b < byte; ++b) symbol += printable(b) ? 0 : 1;
  }
  std::string text;
  append_utf8(symbol, text);
  return text;
}

uint64_t pair_key(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

// A part of the word: a list in an array.
struct Part {
  int64_t id;
  int64_t previous;
  int64_t next;
};
}  // namespace

BytePairEncoder::BytePairEncoder(const Vocabulary& vocabulary, const Merges& merges,
                                 int64_t unknown_id, std::string_view source) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto id_of = [&](const std::string& symbol) {
      const auto found = vocabulary.find(symbol);
      return found == vocabulary.end() ? unknown_id : found->second;
    };
    const std::string symbol = symbol_of_byte(byte);
    inner_ids_[static_cast<size_t>(byte)] = id_of(symbol);
    last_ids_[static_cast<size_t>(byte)] = id_of(symbol + std::string(kWordEnd));
  }
  merges_.reserve(merges.size());
  int64_t rank = 0;
  for (const auto& [left, right] : merges) {
    const auto id_of = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (found != vocabulary.end()) return found->second;
      throw InputError("The tokenizer's merges in " + std::string(source) + " join '" + left +
                       "' and '" + right + "', but its vocabulary has no '" + token +
                       "'. Use vocabulary and merges of one tokenizer.");
    };
    merges_[pair_key(id_of(left), id_of(right))] = {rank++, id_of(left + right)};
  }
}

const BytePairEncoder::Merge* BytePairEncoder::find_merge(int64_t left, int64_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int64_t> BytePairEncoder::merge_bytes(std::string_view word) const {
  const auto size = static_cast<int64_t>(word.size());
  std::vector<Part> parts;
  parts.reserve(word.size());
  for (int64_t i = 0; i < size; ++i) {
    const auto byte = static_cast<uint8_t>(word[static_cast<size_t>(i)]);
    parts.push_back(
        {i + 1 == size ? last_ids_[byte] : inner_ids_[byte], i - 1, i + 1 == size ? kGone : i + 1});
  }
  const auto part = [&](int64_t i) -> Part& { return parts[static_cast<size_t>(i)]; };

  using Candidate = std::tuple<int64_t, int64_t, int64_t>;  // Rank, position, resulting id.
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](int64_t left) {
    if (left < 0 || part(left).next == kGone) return;
    const Merge* merge = find_merge(part(left).id, part(part(left).next).id);
    if (merge != nullptr) candidates.emplace(merge->rank, left, merge->id);
  };
  for (int64_t i = 0; i < size; ++i) consider(i);
  while (!candidates.empty()) {
    const auto [rank, left, id] = candidates.top();
    candidates.pop();
    if (part(left).id == kGone || part(left).next == kGone) continue;
    const int64_t right = part(left).next;
    const Merge* merge = find_merge(part(left).id, part(right).id);
    if (merge == nullptr || merge->id != id) continue;  // Overtaken by another merge.
    part(left).id = id;
    part(left).next = part(right).next;
    if (part(right).next != kGone) part(part(right).next).previous = left;
    part(right).id = kGone;
    consider(part(left).previous);
    consider(left);
  }
  std::vector<int64_t> ids;
  for (int64_t i = 0; i != kGone && i < size; i = part(i).next) ids.push_back(part(i).id);
  return ids;
}

void BytePairEncoder::encode(std::string_view word, std::vector<int64_t>& ids) const {
  if (word.empty()) return;
  if (word.size() > kMaxCachedBytes) {
    const auto fresh = merge_bytes(word);
    ids.insert(ids.end(), fresh.begin(), fresh.end());
    return;
  }
  const std::string key(word);
  {
    const std::lock_guard lock(mutex_);
    const auto found = cache_.find(key);
    if (found != cache_.end()) {
      ids.insert(ids.end(), found->second.begin(), found->second.end());
      return;
    }
  }
  auto fresh = merge_bytes(word);
  ids.insert(ids.end(), fresh.begin(), fresh.end());
  const std::lock_guard lock(mutex_);
  if (cache_.size() >= kMaxCachedWords) cache_.clear();
  cache_.emplace(key, std::move(fresh));
}
}  // namespace trireme
