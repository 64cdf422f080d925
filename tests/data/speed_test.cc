// Measurements, not tests: test_data --gtest_also_run_disabled_tests --gtest_filter='*Speed*'.
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/philox.h"
#include "data/dataset.h"
#include "data/loader.h"
#include "data/permutation.h"
#include "tests/data/dataset_fixtures.h"

namespace trireme {
namespace {
// Calls `work(i)` for half a second of this process's CPU time, which other load on the machine
// does not change, and prints how many a second, times `units`.
template <typename Work>
void report(const char* what, double units, Work&& work) {
  const std::clock_t start = std::clock();
  int64_t count = 0;
  double seconds = 0.0;
  while (seconds < 0.5) {
    for (int i = 0; i < 64; ++i) work(count++);
    seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  }
  std::printf("%-50s %14.0f a second\n", what, static_cast<double>(count) * units / seconds);
}

TEST(DISABLED_SpeedTest, NormalsAndPermutation) {
  std::vector<float> normals(4096);
  report("normals", 4096, [&](int64_t i) {
    PositionRandom(42, Stream::kNoise, 0, static_cast<uint64_t>(i)).normals(normals);
  });
  const Permutation permutation(1'000'000'007, 42, 0, 0);
  int64_t sum = 0;
  report("places of a permutation of 1e9", 1, [&](int64_t i) { sum += permutation(i); });
  EXPECT_NE(sum, 0);
}

TEST(DISABLED_SpeedTest, RandomSamplesOfFourBy32By32Halves) {
  const test::PythonFixtures fixtures(R"py(
import h5py, numpy as np
data = np.random.default_rng(0).standard_normal((20000, 4, 32, 32)).astype('f2')
for name, options in [('contiguous', {}), ('chunks', dict(chunks=(32, 4, 32, 32))),
                      ('deflate', dict(chunks=(1, 4, 32, 32), compression='gzip', shuffle=True))]:
    with h5py.File(name + '.h5', 'w') as f:
        f.attrs.update(format='trireme-latents', version=1, scaling_factor=0.18)
        f.create_dataset('latents', data=data if name == 'contiguous' else data[:2000], **options)
        f['caption_index'] = np.arange(len(f['latents'])) % 100
        f['text/prompt_embeds'] = np.zeros((100, 77, 768), 'f2')
)py");
  ASSERT_TRUE(fixtures.works());
  for (const char* name : {"contiguous", "chunks", "deflate"}) {
    const auto dataset = LatentDataset::open({fixtures.file(std::string(name) + ".h5")});
    const Permutation permutation(dataset->num_samples(), 1, 0, 0);
    std::vector<float> latent(4096);
    report((std::string("random samples, ") + name).c_str(), 1, [&](int64_t i) {
      dataset->read_latent(permutation(i % dataset->num_samples()), {}, latent);
    });
    for (const bool use_text : {false, true}) {
      report(use_text ? "  samples in batches of 16 with text" : "  samples in batches of 16", 16,
             [&](int64_t i) {
               std::vector<SampleDraw> draws;
               for (int64_t j = 0; j < 16; ++j) {
                 draws.push_back({permutation((16 * i + j) % dataset->num_samples()), 0});
               }
               (void)make_training_batch(*dataset, {.use_text = use_text}, 1, 0, draws);
             });
    }
  }
}
}  // namespace
}  // namespace trireme
