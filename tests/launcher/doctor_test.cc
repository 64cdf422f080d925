#include "launcher/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/doctor_report.h"

namespace trireme {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

Health judged(const std::string& mpi, const std::string& pmix) {
  return judge_mpi(mpi, pmix).front().health;
}

TEST(DoctorTest, VersionsOrderByNumbers) {
  EXPECT_TRUE(is_older("4.1.4", "4.1.10"));
  EXPECT_FALSE(is_older("4.10", "4.9.9"));
  EXPECT_TRUE(is_older("2.13.0", "2.15"));
  EXPECT_FALSE(is_older("4.1.6", "4.1.6"));
}

TEST(DoctorTest, KnownBadMpiVersionsAreNamed) {
  EXPECT_EQ(judged("Open MPI 4.1.4", "4.2.2"), Health::kOk);
  EXPECT_EQ(judged("Open MPI 4.1.4", "4.2.3"), Health::kWarn);  // Mended in 4.1.6.
  EXPECT_EQ(judged("Open MPI 4.1.6", "4.2.9"), Health::kOk);
  EXPECT_EQ(judged("Open MPI 5.0.5", "5.0.3"), Health::kOk);
  EXPECT_EQ(judged("Open MPI 3.1.1", ""), Health::kFail);
  EXPECT_EQ(judged("Open MPI 3.1.6", ""), Health::kWarn);
  EXPECT_EQ(judged("MPICH 4.0", ""), Health::kWarn);
}

TEST(DoctorTest, ADriverServesItsMajorVersion) {
  EXPECT_EQ(judge_driver("13.0", "13.1").health, Health::kOk);
  EXPECT_EQ(judge_driver("12.8", "12.2").health, Health::kOk);
  EXPECT_EQ(judge_driver("13.0", "12.8").health, Health::kFail);
  EXPECT_EQ(judge_driver("13.0", "").health, Health::kWarn);
}

TEST(DoctorTest, RanksThatAgreeShareARow) {
  const Findings same{{"MPI", Health::kOk, "4.1.4", ""}, {"write", Health::kOk, "fast", ""}};
  const Findings other{{"MPI", Health::kOk, "4.1.6", ""}};
  const auto rows = merge_findings({same, other, other});
  ASSERT_THAT(rows, SizeIs(3));
  EXPECT_THAT(rows[0].ranks, ElementsAre(0));
  EXPECT_THAT(rows[1].ranks, ElementsAre(1, 2));
  EXPECT_EQ(rows[0].finding.health, Health::kWarn);  // Hosts have different versions.
  EXPECT_EQ(rows[2].finding.health, Health::kOk);
  EXPECT_EQ(worst(rows), Health::kWarn);
  EXPECT_THAT(doctor_table(rows, {"a", "b", "b"}), HasSubstr("[rank 1-2: b]"));
}

TEST(DoctorTest, FindingsTravelAsJson) {
  const Findings findings{{"x", Health::kFail, "a \"b\"", "mend\nit"}};
  const Findings back = findings_from_json(findings_to_json(findings));
  ASSERT_THAT(back, SizeIs(1));
  EXPECT_EQ(back[0].health, Health::kFail);
  EXPECT_EQ(back[0].found, "a \"b\"");
  EXPECT_EQ(back[0].cure, "mend\nit");
}
}  // namespace
}  // namespace trireme
