#include "core/log.h"

#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "tests/temporary_folder.h"

namespace trireme {
namespace {
using testing::HasSubstr;

class LogTest : public test::FolderTest {
 protected:
  ~LogTest() override { log::configure(0, 1); }
};

TEST_F(LogTest, ALoneRankWritesPlainLines) {
  testing::internal::CaptureStderr();
  log::configure(0, 1);
  log::info("hello {} %v");
  log::warn("mind");
  log::flush();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "hello {} %v\nwarning: mind\n");
}

TEST_F(LogTest, LinesBearTheRankWhereThereAreSeveral) {
  testing::internal::CaptureStderr();
  log::configure(2, 4);
  log::info("not on the console");
  log::error("bad");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "[rank 2] error: bad\n");
}

TEST_F(LogTest, FileOfRankZeroGetsEveryLineAtOnceAndIsAppendedTo) {
  testing::internal::CaptureStderr();
  for (const char* line : {"first", "second"}) {
    log::configure(0, 2);
    log::add_file(folder_ / "log.txt");
    log::info(line);
  }
  testing::internal::GetCapturedStderr();
  const std::string text = read_text_file(folder_ / "log.txt", "log");
  EXPECT_THAT(text, HasSubstr("[rank 0] first\n"));
  EXPECT_THAT(text, HasSubstr("[rank 0] second\n"));
}

TEST_F(LogTest, OtherRanksFilesComeWithTheirFirstWarning) {
  testing::internal::CaptureStderr();
  log::configure(3, 4);
  log::add_file(folder_ / "log.txt");
  log::info("nothing to see");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "log.rank3.txt"));
  log::warn("something");
  testing::internal::GetCapturedStderr();
  EXPECT_THAT(read_text_file(folder_ / "log.rank3.txt", "log"),
              HasSubstr("[rank 3] warning: something\n"));
}

TEST_F(LogTest, AFileThatCannotBeWrittenIsAUsageError) {
  EXPECT_THROW(log::add_file("/dev/null/log.txt"), UsageError);
}
}  // namespace
}  // namespace trireme
