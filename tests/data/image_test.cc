#include "data/image.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {

using testing::Each;
using testing::HasSubstr;

class ImageTest : public testing::Test {
 protected:
  ImageTest() { std::filesystem::create_directories(folder_); }
  ~ImageTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  static std::string bytes_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static Image noise(int64_t width, int64_t height) {
    std::mt19937 random(7);
    Image image{.width = width, .height = height, .pixels = {}};
    image.pixels.resize(static_cast<size_t>(3 * width * height));
    std::ranges::generate(image.pixels, [&] { return static_cast<uint8_t>(random()); });
    return image;
  }
  static std::string failure_of(const std::filesystem::path& file) {
    try {
      (void)read_image(file);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

  const std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) /
                                        ("trireme_image_test_" + std::to_string(::getpid()));
};

TEST_F(ImageTest, PngReadsBackAsWritten) {
  const Image image = noise(37, 11);
  write_png(folder_ / "a.png", image);
  const Image read = read_image(folder_ / "a.png");
  EXPECT_EQ(read.width, 37);
  EXPECT_EQ(read.height, 11);
  EXPECT_EQ(read.pixels, image.pixels);
}

TEST_F(ImageTest, EveryTruncationOfAPngIsAnError) {
  write_png(folder_ / "a.png", noise(5, 4));
  const std::string whole = bytes_of(folder_ / "a.png");
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(failure_of(write("cut.png", whole.substr(0, size))), HasSubstr("cut.png"))
        << "cut to " << size << " bytes";
  }
}

TEST_F(ImageTest, DamagedPngsAreErrorsOrPicturesButNeverCrash) {
  write_png(folder_ / "a.png", noise(6, 6));
  const std::string whole = bytes_of(folder_ / "a.png");
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    std::string damaged = whole;
    damaged[random() % damaged.size()] = static_cast<char>(random());
    damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      const Image image = read_image(write("damaged.png", damaged));
      EXPECT_EQ(image.pixels.size(), static_cast<size_t>(3 * image.width * image.height));
    } catch (const InputError&) {
    }
  }
}

TEST_F(ImageTest, HugePngIsRefusedBeforeItIsAllocated) {
  write_png(folder_ / "a.png", noise(2, 2));
  std::string bomb = bytes_of(folder_ / "a.png");
  // IHDR for 65536 x 65536 pixels, with its checksum.
  const std::string header("IHDR\0\1\0\0\0\1\0\0\x8\x2\0\0\0", 17);
  bomb.replace(12, 17, header);
  uint32_t crc = 0xffffffffU;
  for (const char c : header) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1U ? 0xedb88320U : 0U);
  }
  crc = ~crc;
  for (int i = 0; i < 4; ++i) bomb[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  EXPECT_THAT(failure_of(write("bomb.png", bomb)), HasSubstr("65536 x 65536 pixels"));
}

TEST_F(ImageTest, OtherFormatsAreNamed) {
  EXPECT_THAT(failure_of(write("a.png", "GIF89a...")), HasSubstr("it is a GIF file"));
  EXPECT_THAT(failure_of(write("b.png", "some text")), HasSubstr("neither a PNG nor a JPEG"));
  EXPECT_THAT(failure_of(write("c.jpg", "")), HasSubstr("it is empty"));
  EXPECT_THAT(failure_of(folder_ / "missing.png"), HasSubstr("missing.png"));
}

TEST_F(ImageTest, AFileThatCannotBeWrittenIsAUsageError) {
  write("plain", "x");
  EXPECT_THROW(write_png(folder_ / "plain" / "a.png", noise(2, 2)), UsageError);
}

TEST(ResizeTest, SameSizeIsTheSamePicture) {
  Image image{.width = 3, .height = 2, .pixels = {}};
  for (int i = 0; i < 18; ++i) image.pixels.push_back(static_cast<uint8_t>(14 * i));
  EXPECT_EQ(resize_lanczos(image, 3, 2).pixels, image.pixels);
}

TEST(ResizeTest, AConstantStaysConstantAtAnySize) {
  const Image image{.width = 17, .height = 5, .pixels = std::vector<uint8_t>(3 * 17 * 5, 201)};
  for (const int64_t size : {1, 2, 9, 64, 200}) {
    EXPECT_THAT(resize_lanczos(image, size, 1 + size / 2).pixels, Each(201)) << size;
  }
}

TEST(ResizeTest, CropTakesTheCentreOfTheResizedPicture) {
  // 40 x 10 at 10: columns 15 to 24 of the picture itself.
  Image image{.width = 40, .height = 10, .pixels = {}};
  for (int i = 0; i < 400; ++i) {
    for (int c = 0; c < 3; ++c) image.pixels.push_back(static_cast<uint8_t>(i % 40 + 50 * c));
  }
  const Image crop = resize_and_centre_crop(image, 10);
  ASSERT_EQ(crop.pixels.size(), 300U);
  for (size_t i = 0; i < 100; ++i) EXPECT_EQ(crop.pixels[3 * i], 15 + i % 10);
}

TEST(ResizeTest, CropOfAThinPictureDoesNotMakeTheWholeOfIt) {
  // Resized whole it would have 512 x 10,240,000 pixels.
  const Image image{.width = 1, .height = 20000, .pixels = std::vector<uint8_t>(60000, 9)};
  const Image crop = resize_and_centre_crop(image, 512);
  EXPECT_EQ(crop.width, 512);
  EXPECT_EQ(crop.height, 512);
  EXPECT_THAT(crop.pixels, Each(9));
}
}  // namespace
}  // namespace trireme
