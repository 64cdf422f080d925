#include "core/files.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/sha256.h"
#include "tests/temporary_folder.h"

namespace trireme {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

using FilesTest = test::FolderTest;

TEST_F(FilesTest, MissingFileIsNamed) {
  EXPECT_THAT([&] { (void)File::open_for_reading(folder_ / "no.bin", "dataset"); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("dataset"), HasSubstr("no.bin"))));
}

TEST_F(FilesTest, FolderIsNotAFile) {
  EXPECT_THAT([&] { (void)File::open_for_reading(folder_, "dataset"); },
              ThrowsMessage<InputError>(HasSubstr("is a folder")));
}

TEST_F(FilesTest, CreatingWhereThereIsNoFolderIsAUsageError) {
  EXPECT_THROW((void)File::create(folder_ / "no" / "file"), UsageError);
}

TEST_F(FilesTest, WhatIsWrittenIsReadBackAtItsOffset) {
  const std::string text = "0123456789";
  const File out = File::create(folder_ / "digits");
  out.write_at(5, std::as_bytes(std::span(text)));
  out.sync();
  const File in = File::open_for_reading(folder_ / "digits", "file");
  EXPECT_EQ(in.size_bytes(), 15U);
  std::string back(4, ' ');
  in.read_at(7, std::as_writable_bytes(std::span(back)));
  EXPECT_EQ(back, "2345");
}

TEST_F(FilesTest, ReadingBeyondTheEndSaysTruncated) {
  std::ofstream(folder_ / "short") << "abc";
  const File file = File::open_for_reading(folder_ / "short", "file");
  std::vector<std::byte> bytes(8);
  EXPECT_THAT([&] { file.read_at(0, bytes); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("truncated"), HasSubstr("short"))));
}

TEST_F(FilesTest, AtomicWriteReplacesAndLeavesNothingBeside) {
  write_text_file_atomically(folder_ / "note", "first");
  write_text_file_atomically(folder_ / "note", "second");
  EXPECT_EQ(read_text_file(folder_ / "note", "note"), "second");
  const std::filesystem::directory_iterator files(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(FilesTest, TextLargerThanAllowedIsRefused) {
  std::ofstream(folder_ / "text") << "abcdef";
  EXPECT_THROW((void)read_text_file(folder_ / "text", "note", 5), InputError);
  EXPECT_EQ(read_text_file(folder_ / "text", "note", 6), "abcdef");
}

// FIPS 180-4's examples.
TEST_F(FilesTest, Sha256GivesTheKnownAnswers) {
  EXPECT_EQ(sha256_of_text(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of_text("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  std::ofstream(folder_ / "million") << std::string(1000000, 'a');
  EXPECT_EQ(sha256_of_file(folder_ / "million"),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_F(FilesTest, Sha256OfPartsIsThatOfTheWhole) {
  std::ofstream(folder_ / "large") << std::string((1 << 20) + 17, 'x');
  Sha256 hash;
  const std::string part((1 << 20) + 17, 'x');
  for (const char& letter : part) hash.update(std::as_bytes(std::span(&letter, 1)));
  EXPECT_EQ(hash.hex_digest(), sha256_of_file(folder_ / "large"));
}
}  // namespace
}  // namespace trireme
