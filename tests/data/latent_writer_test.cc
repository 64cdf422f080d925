#include "data/latent_writer.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/error.h"

namespace trireme {
namespace {

using testing::HasSubstr;

class LatentWriterTest : public testing::Test {
 protected:
  LatentWriterTest() { std::filesystem::create_directories(folder_); }
  ~LatentWriterTest() override { std::filesystem::remove_all(folder_); }

  static LatentFileHeader make_header() {
    return {.scaling_factor = 0.18215,
            .shift_factor = 0.5,
            .vae = "a VAE",
            .provenance = {{"crop", "centre"}, {"vae_sha256", std::string(64, 'a')}},
            .kind = LatentKind::kMoments,
            .shape = {.channels = 4, .height = 2, .width = 3},
            .ids = {"a.png", "b/ü.png", "c.png"},
            .caption_rows = {{1}, {2, 1}, {1}},
            .captions = {"", "eine Katze 🐈", "two\nlines"},
            .text_length = 5,
            .text_width = 6,
            .pooled_width = 7};
  }
  // Runs Python statements with `f` the file opened by h5py; true unless one of them fails.
  bool holds_for_h5py(const std::filesystem::path& file, const std::string& statements) const {
    std::ofstream(folder_ / "check.py") << "import sys, h5py, numpy as np\n"
                                        << "f = h5py.File(sys.argv[1], 'r')\n"
                                        << statements;
    const std::string command = std::string(std::getenv("TRIREME_PYTHON")) + " " +
                                (folder_ / "check.py").string() + " " + file.string();
    return std::system(command.c_str()) == 0;
  }
  static bool has_python() {
    const char* python = std::getenv("TRIREME_PYTHON");
    return python != nullptr && *python != '\0';
  }
  static std::string bytes_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  template <typename T>
  static void put(const std::filesystem::path& file, uint64_t offset_bytes,
                  const std::vector<T>& values) {
    std::fstream out(file, std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(static_cast<std::streamoff>(offset_bytes));
    out.write(reinterpret_cast<const char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(T)));
  }

  const std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) /
                                        ("trireme_writer_test_" + std::to_string(::getpid()));
};

TEST_F(LatentWriterTest, H5pyReadsWhatWasWritten) {
  if (!has_python()) GTEST_SKIP() << "TRIREME_PYTHON names no Python with h5py";
  const auto file = folder_ / "a.h5";
  const LatentFileLayout layout = create_latent_file(file, make_header());
  put<uint16_t>(file, layout.latents_offset_bytes, std::vector<uint16_t>(3 * 8 * 6, 0x3c00));
  put<uint64_t>(file, layout.xxh3_offset_bytes, {1, 2, 0xffffffffffffffffULL});
  put<uint16_t>(file, layout.prompt_embeds_offset_bytes, std::vector<uint16_t>(90, 0xc000));
  put<uint16_t>(file, layout.pooled_offset_bytes, std::vector<uint16_t>(21, 0x4200));
  EXPECT_TRUE(holds_for_h5py(file, R"(
a = f.attrs
assert a['format'] == 'trireme-latents' and a['version'] == 1 and a['vae'] == 'a VAE'
assert a['scaling_factor'] == 0.18215 and a['shift_factor'] == 0.5
assert a['crop'] == 'centre' and a['vae_sha256'] == 64 * 'a'
z = f['latents']
assert z.shape == (3, 8, 2, 3) and z.dtype == np.float16 and z.chunks is None
assert z.attrs['kind'] == 'moments' and (z[:] == 1).all()
assert f['xxh3'].dtype == np.uint64 and f['xxh3'][:].tolist() == [1, 2, 2**64 - 1]
assert f['ids'].asstr()[:].tolist() == ['a.png', 'b/ü.png', 'c.png']
assert f['caption_index'].dtype == np.int32
assert f['caption_index'][:].tolist() == [[1, -1], [2, 1], [1, -1]]
assert f['text/captions'].asstr()[:].tolist() == ['', 'eine Katze 🐈', 'two\nlines']
assert f['text/prompt_embeds'].shape == (3, 5, 6) and (f['text/prompt_embeds'][:] == -2).all()
assert f['text/pooled_prompt_embeds'].shape == (3, 7)
assert (f['text/pooled_prompt_embeds'][:] == 3).all()
)"));
}

TEST_F(LatentWriterTest, OneCaptionEachGivesAPlainIndexAndSamplesHaveNoKind) {
  if (!has_python()) GTEST_SKIP() << "TRIREME_PYTHON names no Python with h5py";
  LatentFileHeader header = make_header();
  header.caption_rows = {{1}, {2}, {0}};
  header.kind = LatentKind::kSample;
  header.pooled_width = 0;
  create_latent_file(folder_ / "a.h5", header);
  EXPECT_TRUE(holds_for_h5py(folder_ / "a.h5", R"(
assert f['caption_index'][:].tolist() == [1, 2, 0]
assert f['latents'].shape == (3, 4, 2, 3) and 'kind' not in f['latents'].attrs
assert sorted(f['text']) == ['captions', 'prompt_embeds']
)"));
}

TEST_F(LatentWriterTest, EqualInputGivesEqualBytes) {
  create_latent_file(folder_ / "a.h5", make_header());
  create_latent_file(folder_ / "b.h5", make_header());
  EXPECT_EQ(bytes_of(folder_ / "a.h5"), bytes_of(folder_ / "b.h5"));
}

TEST_F(LatentWriterTest, TheFileHasItsFullSizeFromTheStart) {
  LatentFileHeader header = make_header();
  header.shape = {.channels = 4, .height = 64, .width = 64};
  const LatentFileLayout layout = create_latent_file(folder_ / "a.h5", header);
  EXPECT_EQ(layout.latents_offset_bytes % 4096, 0U);
  EXPECT_GE(std::filesystem::file_size(folder_ / "a.h5"),
            layout.latents_offset_bytes + 3 * 8 * 64 * 64 * 2);
}

TEST_F(LatentWriterTest, RefusesWhatItCannotStore) {
  LatentFileHeader header = make_header();
  header.captions[2] = std::string("a\0b", 3);
  try {
    create_latent_file(folder_ / "a.h5", header);
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("caption 2 contains a zero byte"));
  }
  EXPECT_THROW(create_latent_file(folder_ / "b.h5", {}), InputError);
  EXPECT_THROW(create_latent_file(folder_ / "missing" / "a.h5", make_header()), UsageError);
}
}  // namespace
}  // namespace trireme
