#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "trainer/models/clip_text.h"
#include "trainer/models/tokenizer_bpe.h"
#include "trainer/models/tokenizer_unicode.h"

namespace trireme {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

TEST(TextClassTest, KnowsCharactersNewerThanTheSystemsUnicode) {
  EXPECT_EQ(text_class(U'é'), TextClass::kLetter);
  EXPECT_EQ(text_class(U'Ⅷ'), TextClass::kNumber);
  EXPECT_EQ(text_class(0x3000), TextClass::kSpace);
  EXPECT_EQ(text_class(0x301), TextClass::kOther);    // A combining mark.
  EXPECT_EQ(text_class(0x1c89), TextClass::kLetter);  // Of Unicode 16.
  EXPECT_EQ(text_class(0x10d40), TextClass::kNumber);
  EXPECT_EQ(text_class(0x10ffff), TextClass::kOther);
}

TEST(Utf8Test, EachInvalidPartBecomesOneReplacementCharacter) {
  EXPECT_EQ(decode_utf8("a\xc3(\xe2\x82\xff"), U"a\xfffd(\xfffd\xfffd");
  EXPECT_EQ(decode_utf8("\xf0\x9f\x98\x80"), U"\x1f600");
  std::string text;
  append_utf8(0x1f600, text);
  EXPECT_EQ(text, "\xf0\x9f\x98\x80");
}

TEST(TextNormalizerTest, ComposesThenJoinsSpacesThenLowers) {
  const TextNormalizer normalizer;
  EXPECT_EQ(normalizer.normalize(U"E\u0301  \n\u2003X"), U"\u00e9 x");
  EXPECT_EQ(normalizer.normalize(U"\u0130"), U"i\u0307");
  EXPECT_EQ(normalizer.normalize(U"\u1c89"), U"\u1c8a");
  // A mark that Unicode 9 did not know stays where it is.
  EXPECT_EQ(normalizer.normalize(U"a\u0301\u0898\u0327"), U"\u00e1\u0898\u0327");
}

class BytePairEncoderTest : public testing::Test {
 protected:
  static BytePairEncoder make(BytePairEncoder::Merges merges) {
    BytePairEncoder::Vocabulary vocabulary = {{"a", 0},     {"b", 1},        {"a</w>", 2},
                                              {"b</w>", 3}, {"ab", 4},       {"ab</w>", 5},
                                              {"aab", 6},   {"abab</w>", 7}, {"?", 9}};
    return {vocabulary, merges, 9, "test"};
  }
  static std::vector<int64_t> encode(const BytePairEncoder& encoder, std::string_view word) {
    std::vector<int64_t> ids;
    encoder.encode(word, ids);
    return ids;
  }
};

TEST_F(BytePairEncoderTest, MergesTheEarliestRuleFirst) {
  const auto encoder = make({{"a", "b"}, {"a", "b</w>"}, {"a", "ab"}, {"ab", "ab</w>"}});
  EXPECT_THAT(encode(encoder, "a"), ElementsAre(2));
  EXPECT_THAT(encode(encoder, "ab"), ElementsAre(5));
  EXPECT_THAT(encode(encoder, "aaba"), ElementsAre(6, 2));
  EXPECT_THAT(encode(encoder, "abab"), ElementsAre(7));
}

TEST_F(BytePairEncoderTest, UnknownBytesAreTheUnknownToken) {
  const auto encoder = make({{"a", "b"}});
  EXPECT_THAT(encode(encoder, "azb"), ElementsAre(0, 9, 3));
  EXPECT_THAT(encode(encoder, "\xff"), ElementsAre(9));
}

TEST_F(BytePairEncoderTest, LongWordsTakeLinearlyManyMerges) {
  const auto encoder = make({{"a", "b"}, {"a", "b</w>"}});
  std::string word;
  for (int i = 0; i < 500'000; ++i) word += "ab";
  const auto ids = encode(encoder, word);
  ASSERT_EQ(ids.size(), 500'000U);
  EXPECT_EQ(ids.front(), 4);
  EXPECT_EQ(ids.back(), 5);
}

TEST_F(BytePairEncoderTest, MergeOutsideTheVocabularyIsAnInputError) {
  EXPECT_THROW(make({{"b", "a"}}), InputError);
}

class TokenizerFolderTest : public testing::Test {
 protected:
  TokenizerFolderTest() { std::filesystem::create_directories(folder_ / "tokenizer"); }
  ~TokenizerFolderTest() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / "tokenizer" / name, std::ios::binary) << text;
  }
  void write_vocabulary() const {
    write("vocab.json",
          R"({"a": 0, "a</w>": 1, "!": 2, "!</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5})");
    write("merges.txt", "#version: 0.2\n");
  }
  std::string error() const {
    try {
      (void)ClipTokenizer::load(folder_);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(TokenizerFolderTest, EncodeFramesTruncatesAndPads) {
  write_vocabulary();
  write("tokenizer_config.json", R"({"model_max_length": 5})");
  const auto tokenizer = ClipTokenizer::load(folder_);
  EXPECT_THAT(tokenizer->encode("A"), ElementsAre(4, 1, 5, 5, 5));
  EXPECT_THAT(tokenizer->encode("a a a a a"), ElementsAre(4, 1, 1, 1, 5));
  EXPECT_THAT(tokenizer->tokenize("a <|endoftext|>!"), ElementsAre(1, 5, 3));
}

TEST_F(TokenizerFolderTest, PadTokenOfTheSpecialTokensMapIsFoundInTexts) {
  write_vocabulary();
  write("tokenizer_config.json", R"({"model_max_length": 4, "pad_token": "<|endoftext|>"})");
  write("special_tokens_map.json", R"({"pad_token": "!"})");
  const auto tokenizer = ClipTokenizer::load(folder_);
  EXPECT_THAT(tokenizer->encode("a!"), ElementsAre(4, 1, 2, 5));
  EXPECT_THAT(tokenizer->encode(""), ElementsAre(4, 5, 2, 2));
}

TEST_F(TokenizerFolderTest, UnusableFilesAreNamed) {
  EXPECT_THAT(error(), HasSubstr("vocab.json"));
  write_vocabulary();
  write("merges.txt", "a b c\n");
  EXPECT_THAT(error(), HasSubstr("merges.txt"));
  write("merges.txt", "a x\n");
  EXPECT_THAT(error(), HasSubstr("merges"));
  write("merges.txt", "");
  write("tokenizer_config.json", R"({"padding_side": "left"})");
  EXPECT_THAT(error(), HasSubstr("padding_side"));
  write("tokenizer_config.json", R"({"pad_token": {"content": "!", "lstrip": true}})");
  EXPECT_THAT(error(), HasSubstr("lstrip"));
  write("tokenizer_config.json", R"({"pad_token": 7})");
  EXPECT_THAT(error(), HasSubstr("special token"));
  write("tokenizer.json", R"({"model": {"type": "Unigram"}})");
  EXPECT_THAT(error(), HasSubstr("tokenizer.json"));
}
}  // namespace
}  // namespace trireme
