#include "trainer/models/tokenizer_files.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "trainer/models/json_file.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Match = AddedToken::Match;

constexpr int64_t kMaxId = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxLength = 65536;  // More means "no limit" there.
constexpr int64_t kDefaultLength = 77;

[[noreturn]] void fail(const fs::path& file, const std::string& problem) {
  throw InputError("The tokenizer file " + file.string() + " " + problem +
                   ". Use a CLIPTokenizer folder as transformers' save_pretrained writes it.");
}

bool file_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::optional<Json> read_if_there(const fs::path& file) {
  if (!file_exists(file)) return std::nullopt;
  return read_json_object(file, "tokenizer file");
}

int64_t checked_id(const Json& value, const fs::path& file) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMaxId)) {
    fail(file, "holds an id that is not a whole number below 2^31");
  }
  return value.get<int64_t>();
}

void read_vocabulary(const Json& json, const fs::path& file, TokenizerFiles& files) {
  if (!json.is_object() || json.empty()) fail(file, "has no vocabulary of tokens and ids");
  for (const auto& [token, id] : json.items()) files.vocabulary[token] = checked_id(id, file);
}

void add_merge(std::string_view line, const fs::path& file, TokenizerFiles& files) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    fail(file, "has a merge that is not two tokens: '" + std::string(line.substr(0, 80)) + "'");
  }
  files.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
}

void read_merges_text(const fs::path& file, TokenizerFiles& files) {
  const std::string text = read_text_file(file, "tokenizer's merges");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) add_merge(line, file, files);
    begin = end + 1;
  }
}

void read_merges_json(const Json& merges, const fs::path& file, TokenizerFiles& files) {
  if (!merges.is_array()) fail(file, "has no list of merges");
  for (const auto& merge : merges) {
    if (merge.is_string()) {
      add_merge(merge.get_ref<const std::string&>(), file, files);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      files.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      fail(file, "has a merge that is not two tokens");
    }
  }
}

bool flag(const Json& token, const char* key, bool fallback) {
  const auto found = token.find(key);
  return found == token.end() || !found->is_boolean() ? fallback : found->get<bool>();
}

// A token as these files write it: a string, or an object with its properties.
AddedToken parse_token(const Json& json, Match fallback, const fs::path& file) {
  if (json.is_string()) return {json.get<std::string>(), -1, Match::kRaw};
  if (!json.is_object() || !json.contains("content") || !json["content"].is_string()) {
    fail(file, "has a special token that is neither a string nor an object with content");
  }
  for (const auto* key : {"lstrip", "rstrip", "single_word"}) {
    if (flag(json, key, false)) {
      fail(file, "has a token with " + std::string(key) + " = true, which cannot be represented");
    }
  }
  const bool normalized = flag(json, "normalized", fallback == Match::kNormalized);
  return {json["content"].get<std::string>(), -1, normalized ? Match::kNormalized : Match::kRaw};
}

// Collects the added tokens in the order and with the precedence of transformers 5.
class AddedTokens {
 public:
  explicit AddedTokens(TokenizerFiles& files) : files_(&files) {
    for (const auto& [token, id] : files.vocabulary) next_id_ = std::max(next_id_, id + 1);
  }

  // A token that a list of added tokens names, with its id.
  void list(AddedToken token) { listed_.push_back(std::move(token)); }

  // The id of the special token of this name. Later tokens of the same content win.
  int64_t special(const AddedToken& token) {
    for (const auto& known : listed_) {
      if (known.content == token.content) return add(known);
    }
    return add(token);
  }

  void add_listed() {
    std::ranges::stable_sort(listed_, {}, &AddedToken::id);
    for (const auto& token : listed_) add(token);
  }

 private:
  int64_t add(AddedToken token) {
    const auto in_vocabulary = files_->vocabulary.find(token.content);
    auto& tokens = files_->added_tokens;
    const auto known = std::ranges::find(tokens, token.content, &AddedToken::content);
    if (known != tokens.end()) {
      known->match = token.match;
      return known->id;
    }
    token.id = in_vocabulary != files_->vocabulary.end() ? in_vocabulary->second : next_id_++;
    if (!token.content.empty()) tokens.push_back(token);
    return token.id;
  }

  TokenizerFiles* files_;
  std::vector<AddedToken> listed_;
  int64_t next_id_ = 0;
};

struct Settings {
  Json config = Json::object();        // tokenizer_config.json
  Json special = Json::object();       // special_tokens_map.json
  Json added = Json::object();         // added_tokens.json
  Json added_in_json = Json::array();  // Of tokenizer.json
};

void list_added_tokens(const Settings& settings, const fs::path& folder, AddedTokens& tokens) {
  const auto decoder = settings.config.find("added_tokens_decoder");
  if (decoder != settings.config.end() && decoder->is_object()) {
    for (const auto& [id, json] : decoder->items()) {
      const fs::path file = folder / "tokenizer_config.json";
      AddedToken token =
          parse_token(json, flag(json, "special", false) ? Match::kRaw : Match::kNormalized, file);
      const auto parsed = Json::parse(id, nullptr, false);
      token.id = checked_id(parsed, file);
      tokens.list(std::move(token));
    }
    return;
  }
  for (const auto& [content, id] : settings.added.items()) {
    tokens.list({content, checked_id(id, folder / "added_tokens.json"), Match::kNormalized});
  }
  for (const auto& json : settings.added_in_json) {
    const fs::path file = folder / "tokenizer.json";
    AddedToken token = parse_token(json, Match::kRaw, file);
    if (!json.is_object() || !json.contains("id")) fail(file, "has an added token without id");
    token.id = checked_id(json["id"], file);
    tokens.list(std::move(token));
  }
}

AddedToken special_token(const Settings& settings, const fs::path& folder, const char* key,
                         const std::string& fallback) {
  const bool own_list = settings.config.contains("added_tokens_decoder");
  const auto in_map = settings.special.find(key);
  if (!own_list && in_map != settings.special.end() && !in_map->is_null()) {
    return parse_token(*in_map, Match::kRaw, folder / "special_tokens_map.json");
  }
  const auto in_config = settings.config.find(key);
  if (in_config != settings.config.end() && !in_config->is_null()) {
    return parse_token(*in_config, Match::kNormalized, folder / "tokenizer_config.json");
  }
  return {fallback, -1, Match::kRaw};
}

void read_special_tokens(const Settings& settings, const fs::path& folder, TokenizerFiles& files) {
  AddedTokens tokens(files);
  list_added_tokens(settings, folder, tokens);
  tokens.add_listed();
  const std::string end = "<|endoftext|>";
  files.begin_id = tokens.special(special_token(settings, folder, "bos_token", "<|startoftext|>"));
  files.end_id = tokens.special(special_token(settings, folder, "eos_token", end));
  files.unknown_id = tokens.special(special_token(settings, folder, "unk_token", end));
  files.pad_id = tokens.special(special_token(settings, folder, "pad_token", end));
  for (const auto* key : {"additional_special_tokens", "extra_special_tokens"}) {
    for (const auto* source : {&settings.config, &settings.special}) {
      const auto found = source->find(key);
      if (found == source->end() || !(found->is_array() || found->is_object())) continue;
      for (const auto& json : *found) (void)tokens.special(parse_token(json, Match::kRaw, folder));
    }
  }
}

void read_max_length(const Json& config, const fs::path& file, TokenizerFiles& files) {
  files.max_length = kDefaultLength;
  const auto found = config.find("model_max_length");
  if (found != config.end() && found->is_number_unsigned()) {
    const auto length = found->get<uint64_t>();
    if (length < 2) fail(file, "has a model_max_length below 2");
    if (length <= static_cast<uint64_t>(kMaxLength)) files.max_length = found->get<int64_t>();
  }
  if (config.value("padding_side", Json("right")) != "right") {
    fail(file, "has another padding_side than right, which cannot be represented");
  }
}
}  // namespace

TokenizerFiles read_tokenizer_files(const fs::path& folder) {
  TokenizerFiles files;
  Settings settings;
  const fs::path whole = folder / "tokenizer.json";
  if (const auto json = read_if_there(whole)) {
    const Json model = json->value("model", Json::object());
    if (!model.is_object() || model.value("type", Json("BPE")) != "BPE") {
      fail(whole, "holds no byte-pair model (model.type = BPE)");
    }
    read_vocabulary(model.value("vocab", Json()), whole, files);
    read_merges_json(model.value("merges", Json()), whole, files);
    settings.added_in_json = json->value("added_tokens", Json::array());
    if (!settings.added_in_json.is_array()) fail(whole, "has no list of added_tokens");
    files.source = whole.string();
  } else {
    const fs::path vocabulary = folder / "vocab.json";
    read_vocabulary(read_json_object(vocabulary, "tokenizer's vocabulary"), vocabulary, files);
    read_merges_text(folder / "merges.txt", files);
    files.source = (folder / "merges.txt").string();
  }
  settings.config = read_if_there(folder / "tokenizer_config.json").value_or(Json::object());
  settings.special = read_if_there(folder / "special_tokens_map.json").value_or(Json::object());
  settings.added = read_if_there(folder / "added_tokens.json").value_or(Json::object());
  read_special_tokens(settings, folder, files);
  read_max_length(settings.config, folder / "tokenizer_config.json", files);
  return files;
}
}  // namespace trireme
