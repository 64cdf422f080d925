#include "launcher/rank_output.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace trireme {
namespace {
namespace fs = std::filesystem;

class RankOutputTest : public testing::Test {
 protected:
  RankOutputTest()
      : folder_(fs::temp_directory_path() / ("trireme_ranks_" + std::to_string(getpid()))) {}
  ~RankOutputTest() override { fs::remove_all(folder_); }
  RankOutput make(RankOutput::Labels labels) {
    return RankOutput({.labels = labels,
                       .folder = labels == RankOutput::Labels::kNone ? fs::path() : folder_,
                       .show = [this](OutputStream stream, std::string_view bytes) {
                         (stream == OutputStream::kOut ? out_ : error_) += bytes;
                       }});
  }
  std::string log_of(const std::string& rank) const {
    std::ostringstream text;
    text << std::ifstream(folder_ / ("rank-" + rank + ".log")).rdbuf();
    return text.str();
  }
  // In pieces of every size, since a pipe may cut anywhere.
  template <typename Check>
  void for_all_cuts(RankOutput::Labels labels, const std::string& text, const Check& check) {
    for (size_t size = 1; size <= text.size(); ++size) {
      SCOPED_TRACE(size);
      fs::remove_all(folder_);
      out_.clear();
      error_.clear();
      RankOutput output = make(labels);
      for (size_t at = 0; at < text.size(); at += size)
        output.consume(OutputStream::kError, std::string_view(text).substr(at, size));
      output.finish();
      check(output);
    }
  }
  fs::path folder_;
  std::string out_;
  std::string error_;
};

TEST_F(RankOutputTest, PassesOnWhatIsNoErrorAtOnce) {
  RankOutput output = make(RankOutput::Labels::kNone);
  output.consume(OutputStream::kError, "step 1");
  EXPECT_EQ(error_, "step 1");  // Progress has no line end yet.
  output.consume(OutputStream::kError, "\rstep 2");
  EXPECT_EQ(error_, "step 1\rstep 2");
  output.consume(OutputStream::kOut, "out");
  EXPECT_EQ(out_, "out");
}

TEST_F(RankOutputTest, TheFirstErrorIsKeptAndItsEchoesAreLeftOut) {
  const std::string text =
      "begin\n[rank 2] error: first.\n[rank 1] warning: w\nerror: second.\nno error: here\nerro\n";
  for_all_cuts(RankOutput::Labels::kNone, text, [&](const RankOutput& output) {
    EXPECT_EQ(error_, "begin\n[rank 1] warning: w\nno error: here\nerro\n");
    ASSERT_TRUE(output.first_failure());
    EXPECT_EQ(output.first_failure()->text, "[rank 2] error: first.");
    EXPECT_EQ(output.first_failure()->rank, 2);
  });
}

TEST_F(RankOutputTest, LinesOfMpirunAreSortedByRank) {
  const std::string text =
      "[1,0]<stderr>:loss 1\n[1,3]<stderr>:error: bad\nmpirun says [this]\n"
      "[1,0]<stderr>:half[1,3]<stderr>:other\n[1,0]<stderr>: line [x]\n";
  for_all_cuts(RankOutput::Labels::kMpirun, text, [&](const RankOutput& output) {
    EXPECT_EQ(log_of("00000"), "loss 1\nhalf line [x]\n");
    EXPECT_EQ(log_of("00003"), "error: bad\nother\n");
    ASSERT_TRUE(output.first_failure());
    EXPECT_EQ(output.first_failure()->rank, 3);
    EXPECT_THAT(error_, testing::HasSubstr("mpirun says [this]\n"));
    EXPECT_THAT(error_, testing::Not(testing::HasSubstr("<stderr>")));
  });
}

TEST_F(RankOutputTest, LinesOfSrunAreSortedByRank) {
  const std::string text =
      " 0: loss 1\n12: error: bad\nsrun: error: node1: task 12: Exited\n 0: 2: x\n";
  for_all_cuts(RankOutput::Labels::kSrun, text, [&](const RankOutput& output) {
    EXPECT_EQ(log_of("00000"), "loss 1\n2: x\n");
    EXPECT_EQ(log_of("00012"), "error: bad\n");
    ASSERT_TRUE(output.first_failure());
    EXPECT_EQ(output.first_failure()->text, "error: bad");
  });
}
}  // namespace
}  // namespace trireme
