#include "data/dataset_identity.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/dataset.h"
#include "tests/data/dataset_fixtures.h"

namespace trireme {
namespace {
constexpr const char* kIdentityScript = R"py(
import ctypes, h5py, numpy as np

library = ctypes.CDLL('libxxhash.so.0')
library.XXH3_64bits.restype = ctypes.c_uint64
library.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

def write(name, rows=4, scaling=0.5, text=0, checksums=False, latent=None):
    with h5py.File(name + '.h5', 'w') as f:
        f.attrs['format'] = 'trireme-latents'
        f.attrs['version'] = 1
        f.attrs['scaling_factor'] = scaling
        f.attrs['created'] = name
        latents = np.arange(rows * 4, dtype='f4').reshape(rows, 1, 2, 2)
        if latent is not None: latents[latent] += 1
        f['latents'] = latents
        f['caption_index'] = np.arange(rows) % 3
        f['text/prompt_embeds'] = np.arange(3 * 2 * 3, dtype='f4').reshape(3, 2, 3) + text
        if checksums:
            f['xxh3'] = np.array([library.XXH3_64bits(r.tobytes(), r.nbytes) for r in latents], 'u8')

write('one')
write('copy')
write('scaling', scaling=0.25)
write('count', rows=5)
write('latent', latent=2)
write('text', text=1)
for name, latent in ('many', None), ('many_other', 1):
    write(name, rows=1000, latent=latent)
    write(name + '_checked', rows=1000, latent=latent, checksums=True)
)py";

class DatasetIdentityTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    fixtures_ = std::make_unique<test::PythonFixtures>(kIdentityScript);
  }
  static void TearDownTestSuite() { fixtures_.reset(); }
  void SetUp() override {
    if (!fixtures_->works()) GTEST_SKIP() << "no Python with h5py";
  }
  // Without the file's name.
  static std::string identity(const std::string& name) {
    const auto path = fixtures_->file(name + ".h5");
    std::string text = identity_of(*LatentDataset::open({path}), {});
    for (size_t at = 0; (at = text.find(path.string(), at)) != std::string::npos;) {
      text.erase(at, path.string().size());
    }
    return text;
  }

 private:
  static inline std::unique_ptr<test::PythonFixtures> fixtures_;
};

TEST_F(DatasetIdentityTest, ACopyIsTheSame) { EXPECT_EQ(identity("one"), identity("copy")); }

TEST_F(DatasetIdentityTest, AnotherScalingCountLatentOrTextIsAnother) {
  for (const auto* name : {"scaling", "count", "latent", "text"}) {
    EXPECT_NE(identity("one"), identity(name)) << name;
  }
  EXPECT_THAT(identity("scaling"), testing::HasSubstr("scaling_factor = 0.25"));
  EXPECT_THAT(identity("count"),
              testing::HasSubstr("5 latents (sample, float32) of shape (1, 2, 2)"));
}

TEST_F(DatasetIdentityTest, RowsThatAreNotReadTellByTheChecksumsOfTheFile) {
  EXPECT_EQ(identity("many"), identity("many_other"));
  EXPECT_NE(identity("many_checked"), identity("many_other_checked"));
  EXPECT_THAT(identity("many"), testing::HasSubstr("row 999: checksum"));
}
}  // namespace
}  // namespace trireme
