#pragma once
#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace trireme {

// Byte-pair encoding of words (Sennrich et al., 2016) over the 256 bytes, the last of a word marked
// by `</w>`. A word of n bytes takes O(n log n). Const methods are thread-safe.
class BytePairEncoder {
 public:
  using Vocabulary = std::unordered_map<std::string, int64_t>;
  using Merges = std::vector<std::pair<std::string, std::string>>;  // First come, first merged.

  // Ids lie in [0, 2^31). A byte that the vocabulary lacks becomes `unknown_id`. `source` names the
  // file in errors: InputError for a merge whose parts or result are not in the vocabulary.
  BytePairEncoder(const Vocabulary& vocabulary, const Merges& merges, int64_t unknown_id,
                  std::string_view source);

  // Appends the ids of `word`, which is any bytes.
  void encode(std::string_view word, std::vector<int64_t>& ids) const;

 private:
  struct Merge {
    int64_t rank = 0;
    int64_t id = 0;
  };
  using Ids = std::vector<int64_t>;
  [[nodiscard]] Ids merge_bytes(std::string_view word) const;
  [[nodiscard]] const Merge* find_merge(int64_t left, int64_t right) const;

  std::array<int64_t, 256> inner_ids_{};
  std::array<int64_t, 256> last_ids_{};
  std::unordered_map<uint64_t, Merge> merges_;
  mutable std::mutex mutex_;
  mutable std::unordered_map<std::string, Ids> cache_;  // Of short words; bounded.
};
}  // namespace trireme
