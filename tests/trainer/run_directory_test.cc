#include "trainer/run_directory.h"

#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <utility>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "tests/temporary_folder.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class RunDirectoryTest : public test::FolderTest {
 protected:
  void write(const fs::path& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  std::string read(const fs::path& name) {
    std::stringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }
};

// A process that holds the lock until it is told to end.
class Holder {
 public:
  explicit Holder(const fs::path& folder) {
    int ready[2];
    int end[2];
    EXPECT_EQ(pipe(ready) | pipe(end), 0);
    process_ = fork();
    if (process_ == 0) {
      close(end[1]);
      close(ready[0]);
      const RunDirectory run(folder, RunDirectory::Start::kResume);
      char byte = 0;
      (void)!write(ready[1], "r", 1);
      (void)!::read(end[0], &byte, 1);  // Ends when the parent closes its side.
      _exit(0);
    }
    close(ready[1]);
    close(end[0]);
    char byte = 0;
    (void)!::read(ready[0], &byte, 1);
    close(ready[0]);
    end_ = end[1];
  }
  ~Holder() { release(); }
  void release() {
    if (end_ < 0) return;
    close(std::exchange(end_, -1));
    waitpid(process_, nullptr, 0);
  }
  [[nodiscard]] pid_t process() const { return process_; }

 private:
  pid_t process_ = -1;
  int end_ = -1;
};

TEST_F(RunDirectoryTest, CreatesTheFolderAndNamesItsHolder) {
  const RunDirectory run(folder_ / "a" / "b", RunDirectory::Start::kResume);
  EXPECT_TRUE(fs::is_directory(folder_ / "a" / "b"));
  EXPECT_FALSE(run.holds_run());
  EXPECT_THAT(read("a/b/lock"), HasSubstr("process " + std::to_string(getpid())));
}

TEST_F(RunDirectoryTest, ASecondRunIsRefusedNamingTheHolder) {
  const Holder holder(folder_);
  try {
    const RunDirectory run(folder_, RunDirectory::Start::kResume, std::chrono::milliseconds(100));
    FAIL() << "two runs in one folder";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("process " + std::to_string(holder.process())),
                                    HasSubstr(folder_.string())));
  }
}

TEST_F(RunDirectoryTest, TheLockOfAnEndedRunIsFree) {
  Holder(folder_).release();
  const RunDirectory run(folder_, RunDirectory::Start::kResume);
  EXPECT_THAT(read("lock"), HasSubstr("process " + std::to_string(getpid())));
}

TEST_F(RunDirectoryTest, AFolderThatCannotBeMadeIsAUsageError) {
  write("file", "x");
  for (const fs::path& path :
       {folder_ / "file" / "run", fs::path("/proc/trireme-run"), folder_ / "file"}) {
    EXPECT_THROW(RunDirectory(path, RunDirectory::Start::kResume), UsageError) << path;
  }
}

TEST_F(RunDirectoryTest, FreshRemovesWhatARunLeftAndNothingElse) {
  {
    const RunDirectory run(folder_, RunDirectory::Start::kResume);
  }
  for (const char* name :
       {"config.toml", "metrics.jsonl", "log.txt", "log.rank3.txt", "samples/a.png",
        "checkpoints/step-00000001/manifest.json", "notes.md"}) {
    write(name, "x");
  }
  const RunDirectory run(folder_, RunDirectory::Start::kFresh);
  EXPECT_FALSE(run.holds_run());
  EXPECT_TRUE(fs::exists(folder_ / "notes.md"));
  for (const char* name : {"metrics.jsonl", "log.txt", "log.rank3.txt", "samples", "checkpoints"}) {
    EXPECT_FALSE(fs::exists(folder_ / name)) << name;
  }
}

TEST_F(RunDirectoryTest, FreshLeavesAFolderThatIsNoRun) {
  write("config.toml", "x");
  write("samples/mine.png", "x");
  for (int attempt = 0; attempt < 2; ++attempt) {
    EXPECT_THROW(RunDirectory(folder_, RunDirectory::Start::kFresh), UsageError);
  }
  EXPECT_TRUE(fs::exists(folder_ / "samples" / "mine.png"));
}

TEST_F(RunDirectoryTest, ResumeKeepsEverything) {
  {
    const RunDirectory run(folder_, RunDirectory::Start::kResume);
  }
  write("config.toml", "x");
  const RunDirectory run(folder_, RunDirectory::Start::kResume);
  EXPECT_TRUE(run.holds_run());
}

TEST_F(RunDirectoryTest, MetricsAreCutWhereTheCheckpointStood) {
  const fs::path file = folder_ / "metrics.jsonl";
  uint64_t at_checkpoint = 0;
  {
    MetricsFile metrics(file, 0);
    metrics.append("{\"step\":1}");
    at_checkpoint = metrics.size_bytes();
    metrics.append("{\"step\":2}");
  }
  MetricsFile metrics(file, at_checkpoint);
  metrics.append("{\"step\":2,\"again\":1}");
  metrics.sync();
  EXPECT_EQ(read("metrics.jsonl"), "{\"step\":1}\n{\"step\":2,\"again\":1}\n");
  EXPECT_EQ(metrics.size_bytes(), fs::file_size(file));
}

TEST_F(RunDirectoryTest, ShorterMetricsGoOnAfterTheirLastWholeLine) {
  write("metrics.jsonl", "{\"step\":1}\n{\"st");
  MetricsFile metrics(folder_ / "metrics.jsonl", 1000);
  metrics.append("{}");
  EXPECT_EQ(read("metrics.jsonl"), "{\"step\":1}\n{}\n");
}

TEST_F(RunDirectoryTest, ANewRunStartsWithEmptyMetrics) {
  write("metrics.jsonl", "old\n");
  const MetricsFile metrics(folder_ / "metrics.jsonl", 0);
  EXPECT_EQ(read("metrics.jsonl"), "");
}

TEST(JsonLineTest, KeepsOrderAndEscapes) {
  EXPECT_EQ(
      JsonLine().add("b", int64_t{-3}).add("a", std::string("x\"\n\xff")).add("c", 0.5).text(),
      "{\"b\":-3,\"a\":\"x\\\"\\n\xEF\xBF\xBD\",\"c\":0.5}");
}

TEST(JsonLineTest, WhatIsNotFiniteIsNull) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(JsonLine()
                .add("a", infinity)
                .add("b", std::nan(""))
                .add_float("c", -std::numeric_limits<float>::infinity())
                .text(),
            "{\"a\":null,\"b\":null,\"c\":null}");
}

TEST(JsonLineTest, NumbersReadBackToTheSame) {
  for (const double value : {0.1, 1.0 / 3, 5e-324, 1e300, -0.0, 123456789012345680.0}) {
    const std::string text = JsonLine().add("x", value).text();
    EXPECT_EQ(std::strtod(text.c_str() + 5, nullptr), value) << text;
  }
  for (const float value : {0.1F, 1.0F / 3, 1e-45F, 3.4e38F, 16777216.0F, 7.038531e-26F}) {
    const std::string text = JsonLine().add_float("x", value).text();
    EXPECT_EQ(static_cast<float>(std::strtod(text.c_str() + 5, nullptr)), value) << text;
  }
}
}  // namespace
}  // namespace trireme
