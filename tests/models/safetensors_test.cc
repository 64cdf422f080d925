#include "trainer/models/safetensors.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "trainer/torch_api.h"

#include "core/error.h"

namespace trireme {
namespace {
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  // A file with the given header text and so many data bytes.
  std::filesystem::path write_file(const std::string& header, size_t data_bytes,
                                   const std::string& name = "a.safetensors") const {
    const uint64_t length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return write(name, bytes + header + std::string(data_bytes, '\0'));
  }
  void expect_refused(const std::filesystem::path& file, const std::string& reason) const {
    try {
      const SafetensorsReader reader(file);
      ADD_FAILURE() << "accepted a file with: " << reason;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), HasSubstr(reason));
      EXPECT_THAT(error.what(), HasSubstr(file.string()));
    }
  }
  std::filesystem::path folder_;
};

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

TEST_F(SafetensorsTest, ReadsBackWhatItWrote) {
  const NamedTensors tensors = {
      {"b", at::arange(6, at::kFloat).view({2, 3})}, {"a", at::tensor({1.5, -2.0}).to(at::kHalf)},
      {"c", at::tensor({7, -8}, at::kLong)},         {"d", at::tensor({3.25}).to(at::kBFloat16)},
      {"flags", at::tensor({1, 0}).to(at::kBool)},          {"empty", at::empty({0, 4})},
      {"scalar", at::tensor(2.5, at::kDouble)},      {"transposed", at::rand({4, 3}).t()}};
  const auto file = folder_ / "a.safetensors";
  write_safetensors(file, tensors, {{"format", "pt"}, {"note", "ü"}});

  const SafetensorsReader reader(file);
  EXPECT_EQ(reader.entries().size(), tensors.size());
  EXPECT_EQ(reader.metadata().at("note"), "ü");
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(reader.read(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(reader.read(name), tensor)) << name;
  }
  EXPECT_THROW((void)reader.read("missing"), InputError);
}

TEST_F(SafetensorsTest, EqualTensorsGiveEqualBytesWithAlignedData) {
  const NamedTensors tensors = {{"odd", at::ones({3}, at::kByte)}, {"x", at::ones({2})}};
  write_safetensors(folder_ / "a", tensors);
  write_safetensors(folder_ / "b", {tensors[1], tensors[0]});
  const auto bytes = [&](const char* name) {
    std::ifstream in(folder_ / name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  EXPECT_EQ(bytes("a"), bytes("b"));
  const SafetensorsReader reader(folder_ / "a");
  EXPECT_EQ(reader.entries().at("x").offset_bytes % 4, 0U);
  EXPECT_EQ((reader.entries().at("x").offset_bytes) % 8, 0U);
}

TEST_F(SafetensorsTest, RefusesHostileLengthsWithoutAllocating) {
  expect_refused(write("a", "1234567"), "it has 7 bytes");
  expect_refused(write("a", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10)), "its header");
  expect_refused(write("a", std::string("\x03\0\0\0\0\0\0\0{}", 10)), "its header");
  expect_refused(folder_ / "absent.safetensors", "absent");
}

TEST_F(SafetensorsTest, RefusesMalformedHeaders) {
  expect_refused(write_file("", 0), "not a JSON object");
  expect_refused(write_file("[]", 0), "not a JSON object");
  expect_refused(write_file("{\"a\":", 0), "not a JSON object");
  expect_refused(write_file("{\"\xff\":1}", 0), "not a JSON object");
  expect_refused(write_file("{\"a\":" + std::string(100000, '['), 0), "nested");
  expect_refused(write_file(R"({"a":1})", 0), "lacks dtype");
  expect_refused(write_file(R"({"__metadata__":{"a":1}})", 0), "metadata");
  const auto one = entry("F32", "[1]", "[0,4]");
  expect_refused(write_file("{\"a\":" + one + ",\"a\":" + one + "}", 4), "'a' twice");
  expect_refused(write_file("{\"a\":" + entry("F8", "[1]", "[0,4]") + "}", 4), "dtype 'F8'");
}

TEST_F(SafetensorsTest, RefusesBadShapesAndOffsets) {
  const auto file = [&](const std::string& shape, const std::string& offsets, size_t bytes) {
    return write_file("{\"t\":" + entry("F32", shape, offsets) + "}", bytes);
  };
  expect_refused(file("[2]", "[0,4]", 4), "needs 8 bytes");
  expect_refused(file("[1]", "[0,8]", 4), "outside");
  expect_refused(file("[1]", "[4,0]", 8), "outside");
  expect_refused(file("[1]", "[0,18446744073709551615]", 4), "outside");
  expect_refused(file("[1]", "[-4,0]", 4), "two whole numbers");
  expect_refused(file("[1]", "[0]", 4), "two whole numbers");
  expect_refused(file("[1.5]", "[0,4]", 4), "whole numbers");
  expect_refused(file("[-1]", "[0,4]", 4), "whole numbers");
  expect_refused(file("[9223372036854775808]", "[0,4]", 4), "whole numbers");
  expect_refused(file("[4294967296,4294967296]", "[0,0]", 0), "overflows");
  expect_refused(file("[0,4294967296,4294967296]", "[0,0]", 0), "overflows");
  expect_refused(file("[4611686018427387904]", "[0,0]", 0), "overflows");
  expect_refused(file("[1]", "[0,4]", 5), "end at data byte 4 of 5");
  expect_refused(file("[1]", "[4,8]", 8), "hole");
}

TEST_F(SafetensorsTest, RefusesOverlaps) {
  expect_refused(write_file("{\"a\":" + entry("F32", "[2]", "[0,8]") +
                                ",\"b\":" + entry("F32", "[2]", "[4,12]") + "}",
                            12),
                 "overlaps");
}

TEST_F(SafetensorsTest, RefusesBytesThatAreNoBooleans) {
  const auto header = "{\"t\":" + entry("BOOL", "[1]", "[0,1]") + "}";
  const auto file = write_file(header, 0);
  std::ofstream(file, std::ios::app | std::ios::binary) << '\x02';
  const SafetensorsReader reader(file);
  EXPECT_THROW((void)reader.read("t"), InputError);
}

TEST_F(SafetensorsTest, NoticesAFileThatShrankAfterOpening) {
  const auto file = folder_ / "a";
  write_safetensors(file, {{"x", at::ones({1000})}});
  const SafetensorsReader reader(file);
  std::filesystem::resize_file(file, 100);
  EXPECT_THROW((void)reader.read("x"), InputError);
}

TEST_F(SafetensorsTest, ReadsShards) {
  write_safetensors(folder_ / "one.safetensors", {{"a", at::ones({2})}});
  write_safetensors(folder_ / "two.safetensors", {{"b", at::zeros({3})}});
  const auto index =
      write("m.safetensors.index.json", R"({"metadata":{"total_size":20},"weight_map":)"
                                        R"({"a":"one.safetensors","b":"two.safetensors"}})");
  const SafetensorsReader reader(index);
  EXPECT_TRUE(at::equal(reader.read("a"), at::ones({2})));
  EXPECT_TRUE(at::equal(reader.read("b"), at::zeros({3})));
  EXPECT_EQ(reader.files().size(), 2U);
}

TEST_F(SafetensorsTest, RefusesIndexesThatDoNotFit) {
  write_safetensors(folder_ / "one.safetensors", {{"a", at::ones({2})}, {"b", at::ones({2})}});
  write_safetensors(folder_ / "two.safetensors", {{"a", at::ones({2})}});
  const auto index = [&](const std::string& map) {
    return write("m.safetensors.index.json", R"({"weight_map":)" + map + "}");
  };
  expect_refused(index(R"({"a":"../one.safetensors"})"), "not the name of a file");
  expect_refused(index(R"({"a":"/etc/passwd"})"), "not the name of a file");
  expect_refused(index(R"({"a":".."})"), "not the name of a file");
  expect_refused(index(R"({"a":7})"), "not the name of a file");
  expect_refused(index("{}"), "no weight_map");
  expect_refused(index("[]"), "no weight_map");
  expect_refused(index(R"({"a":"one.safetensors"})"), "'b'");
  expect_refused(index(R"({"a":"one.safetensors","b":"one.safetensors","c":"one.safetensors"})"),
                 "'c' is not in");
  EXPECT_THROW(SafetensorsReader(index(R"({"a":"two.safetensors","b":"one.safetensors"})")),
               InputError);
  EXPECT_THROW(SafetensorsReader(index(R"({"a":"absent.safetensors"})")), InputError);
}

TEST_F(SafetensorsTest, NamesAFileItCannotWrite) {
  EXPECT_THROW(write_safetensors(folder_ / "no" / "a", {{"x", at::ones({1})}}), UsageError);
}

// Every prefix of a good file, and every single changed header byte, is either refused or read.
TEST_F(SafetensorsTest, SurvivesTruncationAndDamage) {
  const auto file = folder_ / "a";
  write_safetensors(file, {{"x", at::ones({3})}, {"y", at::ones({2, 2}, at::kLong)}});
  std::ifstream in(file, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(SafetensorsReader(write("b", bytes.substr(0, length))), InputError) << length;
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char c : {'\0', '9', '"', '\xff'}) {
      std::string damaged = bytes;
      damaged[i] = c;
      try {
        const SafetensorsReader reader(write("b", damaged));
        for (const auto& [name, info] : reader.entries()) (void)reader.read(name);
      } catch (const InputError&) {
      }
    }
  }
}
}  // namespace
}  // namespace trireme
