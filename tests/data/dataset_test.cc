#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "core/philox.h"
#include "data/loader.h"
#include "tests/data/dataset_fixtures.h"

namespace trireme {
namespace {
using testing::AllOf;
using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Sample r of a "plain" file of (C, H, W) = (2, 2, 3) holds 100 r + element.
constexpr const char* kScript = R"py(
import ctypes, h5py, numpy as np

def create(name, **attributes):
    f = h5py.File(name, 'w')
    f.attrs['format'] = 'trireme-latents'
    f.attrs['version'] = 1
    f.attrs['scaling_factor'] = 0.5
    for key, value in attributes.items(): f.attrs[key] = value
    return f

def ramp(n, shape, dtype='f2', first=0):
    size = int(np.prod(shape))
    rows = 100.0 * (first + np.arange(n))[:, None] + np.arange(size)[None, :]
    return rows.reshape((n,) + shape).astype(dtype)

text = np.arange(4 * 2 * 3, dtype='f4').reshape(4, 2, 3)

# Every way of storing the same numbers.
for name, dtype, options in [
        ('half', 'f2', {}), ('single', 'f4', {}), ('big_half', '>f2', {}), ('big_single', '>f4', {}),
        ('deflate', 'f2', dict(chunks=(2, 2, 2, 3), compression='gzip', shuffle=True)),
        ('chunked', 'f4', dict(chunks=(3, 1, 2, 2))),
        ('fletcher', 'f2', dict(chunks=(5, 2, 2, 3), fletcher32=True))]:
    with create(name + '.h5', shift_factor=1.0) as f:
        f.create_dataset('latents', data=ramp(5, (2, 2, 3), dtype), **options)

# Nested buckets of two shapes; paths in an order that differs from that of creation.
with create('nested.h5') as f:
    f['b/inner/latents'] = ramp(2, (1, 2, 2), first=10)
    f['a-b/latents'] = ramp(1, (1, 2, 2), first=20)
    f['a/latents'] = ramp(3, (1, 2, 4), first=30)
    f['latents'] = ramp(2, (1, 2, 2), first=40)
    f['a/deep/latents'] = ramp(0, (1, 9, 9))

# Text, captions of several kinds, companions.
with create('text.h5', vae='a VAE') as f:
    f['latents'] = ramp(4, (1, 2, 2))
    f['caption_index'] = np.array([[1, 2, 3], [3, -1, -1], [-1, -1, -1], [2, 1, -1]], 'i2')
    f['text/prompt_embeds'] = text.astype('f2')
    f['text/pooled_prompt_embeds'] = text[:, 0, :2].astype('f8')
    f['text/captions'] = ['', 'ein Käfer', 'two', 'three']
    f['ids'] = np.array([b'a.png', b'b.png', b'c.png', b'd.png'])
    f['labels'] = np.array([3, 1, 2, 0], 'u1')
    f['add_time_ids'] = np.arange(24).reshape(4, 6)
for name, dtype in [('i8', 'i8'), ('u4', '>u4'), ('i1', 'i1')]:
    with create(f'captions_{name}.h5') as f:
        f['latents'] = ramp(3, (1, 2, 2))
        f.create_dataset('caption_index', data=np.array([3, 0, 2], dtype))
        f['text/prompt_embeds'] = text + 1000
with create('minimal.h5') as f:
    f['latents'] = ramp(2, (1, 2, 2))
    f['text/prompt_embeds'] = text
with create('other_width.h5') as f:
    f['latents'] = ramp(2, (1, 2, 2))
    f['text/prompt_embeds'] = np.zeros((1, 2, 4), 'f4')

# Moments: mean 2, log-variance ln 4 (standard deviation 2) but for elements beyond the clamp.
with create('moments.h5', shift_factor=1.0) as f:
    moments = np.full((2, 4, 1, 2), 2.0, 'f4')
    moments[:, 2:] = np.log(4.0)
    moments[1, 2, 0, 0], moments[1, 2, 0, 1] = -1000.0, 1000.0
    f['latents'] = moments
    f['latents'].attrs['kind'] = 'moments'
library = ctypes.CDLL('libxxhash.so.0')
library.XXH3_64bits.restype = ctypes.c_uint64
library.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
with create('checked.h5') as f:
    data = ramp(4, (1, 2, 2), '>f2')
    f['latents'] = data
    sums = np.array([library.XXH3_64bits(row.tobytes(), row.nbytes) for row in data], 'u8')
    sums[1] ^= 1
    f['xxh3'] = sums
with create('checked_many.h5') as f:  # More than are held in memory.
    data = np.ones((2**20 + 2, 1, 1, 1), 'f2')
    f['latents'] = data
    sums = np.full(len(data), library.XXH3_64bits(data[0].tobytes(), 2), 'u8')
    sums[-1] ^= 1
    f['xxh3'] = sums

# What must be refused: name, words of the message.
def bad(name): return create('bad_' + name + '.h5')
h5py.File('bad_no_format.h5', 'w').close()
with bad('format') as f: f.attrs['format'] = 'other'
with bad('version') as f: f.attrs['version'] = 2
with bad('no_scale') as f: del f.attrs['scaling_factor']
with bad('nan_scale') as f: f.attrs['scaling_factor'] = np.nan
with bad('text_scale') as f: f.attrs['scaling_factor'] = 'large'
with bad('no_latents') as f: f['other'] = np.zeros(3)
with bad('rank') as f: f['latents'] = np.zeros((2, 3, 4), 'f2')
with bad('double') as f: f['latents'] = np.zeros((2, 1, 2, 2), 'f8')
with bad('integer') as f: f['latents'] = np.zeros((2, 1, 2, 2), 'i4')
with bad('compound') as f: f['latents'] = np.zeros((2, 1, 2, 2), [('a', 'f2'), ('b', 'f2')])
with bad('scalar') as f: f['latents'] = 3.0
with bad('empty') as f: f['latents'] = np.zeros((0, 1, 2, 2), 'f2')
with bad('flat') as f: f['latents'] = np.zeros((2, 1, 0, 2), 'f2')
with bad('odd_moments') as f:
    f['latents'] = np.zeros((2, 3, 2, 2), 'f2'); f['latents'].attrs['kind'] = 'moments'
with bad('kind') as f:
    f['latents'] = np.zeros((2, 4, 2, 2), 'f2'); f['latents'].attrs['kind'] = 'mode'
with bad('soft') as f:
    f['a/latents'] = ramp(2, (1, 2, 2)); f['latents'] = h5py.SoftLink('/a/latents')
with bad('extern_link') as f: f['latents'] = h5py.ExternalLink('half.h5', '/latents')
with bad('extern_storage') as f:
    f.create_dataset('latents', (2, 1, 2, 2), 'f2', external=[('raw.bin', 0, 16)])
with bad('virtual') as f:
    layout = h5py.VirtualLayout((5, 2, 2, 3), 'f2'); layout[:] = h5py.VirtualSource('half.h5', 'latents', (5, 2, 2, 3))
    f.create_virtual_dataset('latents', layout)
with bad('lzf') as f: f.create_dataset('latents', data=ramp(4, (1, 2, 2)), chunks=(1, 1, 2, 2), compression='lzf')
with bad('scale_offset') as f:
    f['latents'] = ramp(2, (1, 2, 2)); f.create_dataset('labels', data=np.arange(2), scaleoffset=0)
with bad('cycle') as f: f['latents'] = ramp(2, (1, 2, 2)); f['self'] = f['/']; f['again'] = f['/']
with bad('unwritten') as f: f.create_dataset('latents', (2, 1, 2, 2), 'f2')
with bad('missing_chunk') as f:
    f.create_dataset('latents', (4, 1, 2, 2), 'f2', chunks=(1, 1, 2, 2)); f['latents'][1:] = 1
with bad('caption_high') as f:
    f['latents'] = ramp(3, (1, 2, 2)); f['caption_index'] = [0, 4, 1]; f['text/prompt_embeds'] = text
with bad('caption_low') as f:
    f['latents'] = ramp(3, (1, 2, 2)); f['caption_index'] = [0, 1, -2]; f['text/prompt_embeds'] = text
with bad('caption_padding') as f:
    f['latents'] = ramp(1, (1, 2, 2)); f['caption_index'] = [[1, -1, 2]]; f['text/prompt_embeds'] = text
with bad('caption_unsigned') as f:
    f['latents'] = ramp(1, (1, 2, 2)); f['caption_index'] = np.array([2**64 - 1], 'u8'); f['text/prompt_embeds'] = text
with bad('caption_float') as f: f['latents'] = ramp(1, (1, 2, 2)); f['caption_index'] = [0.5]
with bad('caption_rows') as f: f['latents'] = ramp(2, (1, 2, 2)); f['caption_index'] = [0]
with bad('labels') as f: f['latents'] = ramp(2, (1, 2, 2)); f['labels'] = [1.0, 2.0]
with bad('ids') as f: f['latents'] = ramp(2, (1, 2, 2)); f['ids'] = [1, 2]
with bad('time_ids') as f: f['latents'] = ramp(2, (1, 2, 2)); f['add_time_ids'] = np.zeros((2, 5), 'f4')
with bad('xxh3') as f: f['latents'] = ramp(2, (1, 2, 2)); f['xxh3'] = np.zeros(2, 'i4')
with bad('text_rank') as f: f['latents'] = ramp(2, (1, 2, 2)); f['text/prompt_embeds'] = np.zeros((2, 3), 'f4')
with bad('text_rows') as f:
    f['latents'] = ramp(2, (1, 2, 2)); f['text/prompt_embeds'] = text; f['text/captions'] = ['', 'a']
with bad('text_empty') as f:
    f['latents'] = ramp(2, (1, 2, 2)); f['text/prompt_embeds'] = np.zeros((0, 2, 3), 'f4')
with create('nan.h5') as f:
    data = ramp(3, (1, 2, 2)); data[1, 0, 1, 1] = np.nan; f['group/latents'] = data
with create('nan_text.h5') as f:
    f['latents'] = ramp(2, (1, 2, 2)); data = text.copy(); data[2, 1, 1] = np.inf; f['text/prompt_embeds'] = data
with create('nan_variance.h5') as f:
    f['latents'] = np.full((1, 2, 1, 1), np.inf, 'f4'); f['latents'].attrs['kind'] = 'moments'
with create('overflow.h5', scaling_factor=1e10) as f: f['latents'] = np.full((1, 1, 1, 1), 1e38, 'f4')
with create('large.h5') as f: f['latents'] = ramp(600, (4, 8, 8))
# Without strings of variable length: HDF5 1.10 itself crashes where their heap is damaged.
with create('fixed.h5', format=np.bytes_('trireme-latents')) as f:
    f['latents'] = ramp(4, (1, 2, 2))
    f['caption_index'] = np.array([1, 2, 3, 0], 'i2')
    f['text/prompt_embeds'] = text
    f['text/captions'] = np.array([b'', b'a', b'b', b'c'])
    f['ids'] = np.array([b'a.png', b'b.png', b'c.png', b'd.png'])
    f.create_dataset('b/latents', data=ramp(5, (2, 2, 3)), chunks=(2, 2, 2, 3), compression='gzip')
data = bytearray(open('fixed.h5', 'rb').read()); data[8] = 99  # The superblock's version.
open('bad_newer.h5', 'wb').write(data)
open('bad_truncated.h5', 'wb').write(open('large.h5', 'rb').read()[:150000])
open('bad_text_file.h5', 'w').write('no HDF5 at all')
open('bad_nothing.h5', 'w').close()
)py";

class DatasetTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { fixtures_ = std::make_unique<test::PythonFixtures>(kScript); }
  static void TearDownTestSuite() { fixtures_.reset(); }
  void SetUp() override { ASSERT_TRUE(fixtures_->works()) << "h5py could not write the files"; }

  static std::filesystem::path file(const std::string& name) { return fixtures_->file(name); }
  static std::unique_ptr<LatentDataset> open(const std::vector<std::string>& names) {
    std::vector<std::filesystem::path> paths;
    for (const auto& name : names) paths.push_back(file(name + ".h5"));
    return LatentDataset::open(paths);
  }
  static std::vector<float> latent(const LatentDataset& dataset, int64_t sample, size_t size) {
    std::vector<float> out(size);
    dataset.read_latent(sample, {}, out);
    return out;
  }
  static void expect_refusal(const std::string& name, const std::vector<std::string>& words) {
    for (const std::string& word : words) {
      EXPECT_THAT([&] { (void)open({name}); }, ThrowsMessage<InputError>(HasSubstr(word))) << name;
    }
  }

  static std::unique_ptr<test::PythonFixtures> fixtures_;
};
std::unique_ptr<test::PythonFixtures> DatasetTest::fixtures_;

TEST_F(DatasetTest, EveryStorageGivesTheSameScaledNumbers) {
  for (const char* name :
       {"half", "single", "big_half", "big_single", "deflate", "chunked", "fletcher"}) {
    const auto dataset = open({name});
    ASSERT_EQ(dataset->num_samples(), 5) << name;
    for (int64_t sample = 0; sample < 5; ++sample) {
      const auto values = latent(*dataset, sample, 12);
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], (100.0F * static_cast<float>(sample) + static_cast<float>(i) - 1) / 2)
            << name << ", sample " << sample;
      }
    }
  }
}

TEST_F(DatasetTest, BucketsComeByPathInByteOrder) {
  const auto dataset = open({"nested"});
  std::vector<float> firsts;
  for (int64_t sample = 0; sample < dataset->num_samples(); ++sample) {
    firsts.push_back(2 * latent(*dataset, sample, sample >= 2 && sample < 5 ? 8 : 4)[0] / 100);
  }
  // "/", "/a", "/a-b", "/a/deep" (empty), "/b/inner".
  EXPECT_THAT(firsts, ElementsAre(40, 41, 30, 31, 32, 20, 10, 11));
}

TEST_F(DatasetTest, BucketsOfEqualShapeFormAClassAcrossFiles) {
  const auto dataset = open({"nested", "minimal"});
  ASSERT_EQ(dataset->classes().size(), 2U);
  const ShapeClass& square = dataset->classes()[0];
  EXPECT_EQ(square.shape, (LatentShape{1, 2, 2}));
  EXPECT_EQ(square.num_samples, 7);
  ASSERT_EQ(square.ranges.size(), 2U);
  EXPECT_EQ(square.ranges[0].first, 0);
  EXPECT_EQ(square.ranges[0].count, 2);
  EXPECT_EQ(square.ranges[1].first, 5);
  EXPECT_EQ(square.ranges[1].count, 5);
  EXPECT_EQ(dataset->classes()[1].shape, (LatentShape{1, 2, 4}));
}

TEST_F(DatasetTest, CaptionsArePaddedByMinusOneAndNoneMeansTheEmptyPrompt) {
  const auto dataset = open({"text"});
  EXPECT_EQ(dataset->max_captions(), 3);
  EXPECT_THAT(dataset->caption_rows(0), ElementsAre(1, 2, 3));
  EXPECT_THAT(dataset->caption_rows(1), ElementsAre(3));
  EXPECT_THAT(dataset->caption_rows(2), ElementsAre(0));
  EXPECT_THAT(dataset->caption_rows(3), ElementsAre(2, 1));
  EXPECT_EQ(dataset->caption(1), "ein Käfer");
  EXPECT_EQ(dataset->caption(0), "");
}

TEST_F(DatasetTest, TextAndCompanionsAreReadInAnyNumberType) {
  const auto dataset = open({"text"});
  ASSERT_TRUE(dataset->text().has_value());
  EXPECT_EQ(dataset->text()->num_captions, 4);
  EXPECT_EQ(dataset->text()->length, 2);
  EXPECT_EQ(dataset->text()->width, 3);
  EXPECT_EQ(dataset->text()->pooled_width, 2);
  std::vector<float> embeds(6);
  dataset->read_prompt_embeds(2, embeds);
  EXPECT_THAT(embeds, ElementsAre(12, 13, 14, 15, 16, 17));
  std::vector<float> pooled(2);
  dataset->read_pooled_prompt_embeds(3, pooled);
  EXPECT_THAT(pooled, ElementsAre(18, 19));
  std::vector<float> time_ids(6);
  dataset->read_add_time_ids(1, time_ids);
  EXPECT_THAT(time_ids, ElementsAre(6, 7, 8, 9, 10, 11));
  EXPECT_EQ(dataset->label(0), 3);
  EXPECT_EQ(dataset->id(2), "c.png");
  EXPECT_THAT(dataset->describe(3), HasSubstr("text.h5\", bucket /, row 3"));
}

TEST_F(DatasetTest, IntegersOfAnyWidthAreRead) {
  for (const char* name : {"captions_i8", "captions_u4", "captions_i1"}) {
    const auto dataset = open({name});
    EXPECT_THAT(dataset->caption_rows(0), ElementsAre(3)) << name;
    EXPECT_THAT(dataset->caption_rows(2), ElementsAre(2)) << name;
  }
}

TEST_F(DatasetTest, TextRowsRunOverTheFiles) {
  const auto dataset = open({"captions_i8", "minimal", "captions_i1"});
  EXPECT_EQ(dataset->text()->num_captions, 12);
  EXPECT_THAT(dataset->caption_rows(2), ElementsAre(2));
  EXPECT_THAT(dataset->caption_rows(3), ElementsAre(4));  // No caption_index: row 0 of its file.
  EXPECT_THAT(dataset->caption_rows(5), ElementsAre(11));
  EXPECT_EQ(dataset->empty_prompt_row(6), 8);
  std::vector<float> embeds(6);
  dataset->read_prompt_embeds(7, embeds);
  EXPECT_EQ(embeds[0], 18.0F);
  dataset->read_prompt_embeds(9, embeds);
  EXPECT_EQ(embeds[0], 1006.0F);
}

TEST_F(DatasetTest, TextIsAbsentUnlessEveryFileHasIt) {
  EXPECT_FALSE(open({"minimal", "half"})->text().has_value());
  EXPECT_THAT([&] { open({"minimal", "half"})->require_text(); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("half.h5"), HasSubstr("cross-attention"))));
  EXPECT_NO_THROW(open({"minimal"})->require_text());
}

TEST_F(DatasetTest, TextOfDifferentWidthsIsRefused) {
  EXPECT_THAT([&] { (void)open({"minimal", "other_width"}); },
              ThrowsMessage<InputError>(AllOf(HasSubstr("(2, 4)"), HasSubstr("(2, 3)"))));
}

TEST_F(DatasetTest, MomentsAreSampledClampedThenScaled) {
  const auto dataset = open({"moments"});
  EXPECT_TRUE(dataset->is_moments(0));
  EXPECT_EQ(dataset->classes()[0].shape, (LatentShape{2, 1, 2}));
  const std::vector<float> normals = {0.0F, 1.0F, -1.0F, 0.5F};
  std::vector<float> out(4);
  dataset->read_latent(0, normals, out);  // (2 + 2 n - 1) / 2
  EXPECT_THAT(out, ElementsAre(FloatNear(0.5F, 1e-6F), FloatNear(1.5F, 1e-6F),
                               FloatNear(-0.5F, 1e-6F), FloatNear(1.0F, 1e-6F)));
  dataset->read_latent(1, std::vector<float>(4, 1.0F), out);
  EXPECT_FLOAT_EQ(out[0], 0.5F + 0.5F * std::exp(-15.0F));
  EXPECT_FLOAT_EQ(out[1], 0.5F + 0.5F * std::exp(10.0F));
}

TEST_F(DatasetTest, WrongChecksumNamesTheSample) {
  const auto dataset = open({"checked"});
  for (const int64_t sample : {0, 2, 3}) EXPECT_NO_THROW(latent(*dataset, sample, 4)) << sample;
  EXPECT_THAT([&] { latent(*dataset, 1, 4); },
              ThrowsMessage<InputError>(
                  AllOf(HasSubstr("checked.h5\", bucket /, row 1"), HasSubstr("checksum"))));
}

TEST_F(DatasetTest, ChecksumsThatAreNotHeldAreReadWithTheSample) {
  const auto dataset = open({"checked_many"});
  EXPECT_NO_THROW(latent(*dataset, 1 << 20, 1));
  EXPECT_THAT([&] { latent(*dataset, (1 << 20) + 1, 1); },
              ThrowsMessage<InputError>(HasSubstr("row 1048577: the latents do not match")));
}

TEST_F(DatasetTest, ValuesThatAreNotFiniteNameFileBucketAndRow) {
  const auto dataset = open({"nan"});
  EXPECT_NO_THROW(latent(*dataset, 0, 4));
  EXPECT_THAT([&] { latent(*dataset, 1, 4); },
              ThrowsMessage<InputError>(HasSubstr("nan.h5\", bucket /group, row 1")));
  std::vector<float> embeds(6);
  EXPECT_THAT(
      [&] { open({"nan_text"})->read_prompt_embeds(2, embeds); },
      ThrowsMessage<InputError>(AllOf(HasSubstr("/text/prompt_embeds"), HasSubstr("row 2"))));
  std::vector<float> one(1);
  EXPECT_THROW(open({"nan_variance"})->read_latent(0, one, one), InputError);
  EXPECT_THAT([&] { latent(*open({"overflow"}), 0, 1); },
              ThrowsMessage<InputError>(HasSubstr("overflow")));
}

TEST_F(DatasetTest, RefusesDamagedAndForeignFiles) {
  expect_refusal("bad_absent", {"bad_absent.h5"});
  expect_refusal("bad_truncated", {"bad_truncated.h5", "truncated"});
  expect_refusal("bad_newer", {"bad_newer.h5", "superblock version", "newer", "libver"});
  expect_refusal("bad_text_file", {"bad_text_file.h5", "HDF5"});
  expect_refusal("bad_nothing", {"bad_nothing.h5"});
  expect_refusal("bad_no_format", {"lacks the root attribute \"format\""});
  expect_refusal("bad_format", {"\"other\""});
  expect_refusal("bad_version", {"version 2"});
  expect_refusal("bad_no_scale", {"scaling_factor"});
  expect_refusal("bad_nan_scale", {"scaling_factor", "not finite"});
  expect_refusal("bad_text_scale", {"not a single number"});
}

TEST_F(DatasetTest, RefusesLatentsOfWrongShapeOrType) {
  expect_refusal("bad_no_latents", {"no dataset named \"latents\""});
  expect_refusal("bad_rank", {"(2, 3, 4)", "(N, C, H, W)"});
  expect_refusal("bad_double", {"float64", "float16 or float32"});
  expect_refusal("bad_integer", {"int32"});
  expect_refusal("bad_compound", {"neither numbers nor strings"});
  expect_refusal("bad_scalar", {"not an array"});
  expect_refusal("bad_empty", {"no samples"});
  expect_refusal("bad_flat", {"without elements"});
  expect_refusal("bad_odd_moments", {"even"});
  expect_refusal("bad_kind", {"\"mode\""});
}

TEST_F(DatasetTest, RefusesLinksAndForeignStorage) {
  expect_refusal("bad_soft", {"soft link"});
  expect_refusal("bad_extern_link", {"external link"});
  expect_refusal("bad_extern_storage", {"external storage"});
  expect_refusal("bad_virtual", {"virtual"});
  expect_refusal("bad_lzf", {"filter", "32000"});
  expect_refusal("bad_scale_offset", {"/labels", "filter"});
  expect_refusal("bad_cycle", {"bad_cycle.h5", "group"});
  expect_refusal("bad_unwritten", {"never written"});
  expect_refusal("bad_missing_chunk", {"1 of 4 chunks"});
}

TEST_F(DatasetTest, RefusesCompanionsThatDoNotFit) {
  expect_refusal("bad_caption_high", {"row 1", "caption 4", "4 rows"});
  expect_refusal("bad_caption_low", {"row 2", "caption -2"});
  expect_refusal("bad_caption_padding", {"follows -1"});
  expect_refusal("bad_caption_unsigned", {"row 0", "outside"});
  expect_refusal("bad_caption_float", {"integers"});
  expect_refusal("bad_caption_rows", {"as many rows as latents, 2"});
  expect_refusal("bad_labels", {"/labels"});
  expect_refusal("bad_ids", {"/ids"});
  expect_refusal("bad_time_ids", {"(N, 6)"});
  expect_refusal("bad_xxh3", {"uint64"});
  expect_refusal("bad_text_rank", {"(U, L, D)"});
  expect_refusal("bad_text_rows", {"/text/captions", "4 rows"});
  expect_refusal("bad_text_empty", {"empty prompt"});
}

TEST_F(DatasetTest, AFileCutWhileOpenIsNoticed) {
  const auto dataset = open({"large"});
  EXPECT_EQ(latent(*dataset, 599, 256)[0], 29952.0F);  // The nearest half to 59900, halved.
  std::filesystem::resize_file(file("large.h5"), 100000);
  EXPECT_THAT([&] { latent(*dataset, 599, 256); },
              ThrowsMessage<InputError>(HasSubstr("truncated")));
}

// Reads everything there is; false where it was refused. Anything but an Error escapes.
bool reads_whole(const std::filesystem::path& path) {
  try {
    const auto dataset = LatentDataset::open({path});
    std::vector<float> row;
    for (const ShapeClass& shape_class : dataset->classes()) {
      row.resize(static_cast<size_t>(shape_class.shape.num_elements()));
      const std::vector<float> normals(row.size());
      for (const auto& range : shape_class.ranges) {
        for (int64_t sample = range.first; sample < range.first + std::min<int64_t>(range.count, 9);
             ++sample) {
          dataset->read_latent(sample, normals, row);
          (void)dataset->id(sample);
          for (const int64_t text_row : dataset->caption_rows(sample)) {
            if (dataset->text()) (void)dataset->caption(text_row);
          }
        }
      }
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST_F(DatasetTest, FilesCutAnywhereAreRefused) {
  const std::string whole = read_text_file(file("text.h5"), "file");
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 97) {
    std::ofstream(file("cut.h5"), std::ios::binary) << whole.substr(0, size);
    EXPECT_FALSE(reads_whole(file("cut.h5"))) << size << " of " << whole.size() << " bytes";
  }
  EXPECT_TRUE(reads_whole(file("text.h5")));
}

TEST_F(DatasetTest, FilesWithFlippedBytesAreReadOrRefused) {
  int num_refused = 0;
  const std::string whole = read_text_file(file("fixed.h5"), "file");
  for (uint32_t trial = 0; trial < 400; ++trial) {
    const auto words = philox4x32({trial, 0, 0, 0}, {1, 2});
    std::string flipped = whole;
    // Metadata lie at the front; there most flips matter.
    const size_t size = trial % 2 == 0 ? std::min<size_t>(whole.size(), 3000) : whole.size();
    flipped[words[0] % size] ^= static_cast<char>(1 + words[1] % 255);
    std::ofstream(file("flipped.h5"), std::ios::binary) << flipped;
    num_refused += reads_whole(file("flipped.h5")) ? 0 : 1;
  }
  EXPECT_GT(num_refused, 20);
}

TEST_F(DatasetTest, SummariesTellWhatAFileHolds) {
  const auto summaries = open({"text", "moments"})->summaries();
  ASSERT_EQ(summaries.size(), 2U);
  EXPECT_THAT(summaries[0].attributes, testing::Contains(testing::Pair("vae", "a VAE")));
  EXPECT_THAT(summaries[0].buckets[0].companions, ElementsAre("labels", "ids", "add_time_ids"));
  EXPECT_EQ(summaries[0].buckets[0].type, "float16");
  EXPECT_EQ(summaries[1].buckets[0].kind, "moments");
  EXPECT_EQ(summaries[1].text.width, 0);
}

TEST_F(DatasetTest, ModelWithCrossAttentionNeedsText) {
  const auto dataset = open({"half"});
  EXPECT_THAT([&] { (void)make_training_batch(*dataset, {.use_text = true}, 1, 0, {{0, 0}}); },
              ThrowsMessage<InputError>(HasSubstr("prompt_embeds")));
  EXPECT_NO_THROW((void)make_training_batch(*dataset, {.use_text = false}, 1, 0, {{0, 0}}));
}
}  // namespace
}  // namespace trireme
