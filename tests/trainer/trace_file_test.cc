#include "trainer/trace_file.h"

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "trainer/tensorboard_file.h"

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

TEST(TracerTest, KeepsWhatIsRecordedWhileItIsOn) {
  Tracer tracer;
  const TraceTrack track{.tracer = &tracer, .track = tracer.track("loader")};
  EXPECT_EQ(tracer.track("loader"), track.track);
  const auto now = Clock::now();
  track.record("before", now, now);
  tracer.switch_on();
  track.record("within", now, now + microseconds(5));
  tracer.switch_off();
  track.record("after", now, now);
  const auto spans = tracer.take();
  ASSERT_EQ(spans.size(), 1U);
  EXPECT_EQ(spans[0].name, "within");
  EXPECT_TRUE(tracer.take().empty());
  TraceTrack{}.record("nowhere", now, now);
}

TEST(TraceFileTest, SpansOfATrackFollowEachOther) {
  const auto origin = Clock::now();
  const auto at = [&](int us) { return origin + microseconds(us); };
  const std::string text =
      trace_json({trace_events(0, "a \"host\"", {"main", "loader"},
                               {{.track = 0, .name = "late", .begin = at(8), .end = at(20)},
                                {.track = 0, .name = "early", .begin = at(2), .end = at(10)},
                                {.track = 0, .name = "too early", .begin = at(-5), .end = at(1)},
                                {.track = 1, .name = "batch", .begin = at(3), .end = at(9)}},
                               origin),
                  trace_events(1, "b", {"main", "loader"}, {}, origin)});
  const auto json = nlohmann::json::parse(text);
  std::map<std::pair<int, int>, double> ends;
  std::vector<std::string> names;
  for (const auto& event : json["traceEvents"]) {
    if (event["ph"] != "X") continue;
    auto& end = ends[{event["pid"], event["tid"]}];
    EXPECT_GE(event["ts"].get<double>(), end);
    end = event["ts"].get<double>() + event["dur"].get<double>();
    names.push_back(event["name"]);
  }
  EXPECT_THAT(names, testing::ElementsAre("early", "late", "batch"));
  EXPECT_DOUBLE_EQ((ends[{0, 1000000}]), 20.0);
}

TEST(MaskedCrcTest, IsCastagnolisRotatedAndOffset) {
  // CRC-32C of "123456789" is e3069283 (RFC 3720's check value).
  constexpr uint32_t kCrc = 0xe3069283U;
  EXPECT_EQ(masked_crc32c("123456789"), (kCrc >> 15 | kCrc << 17) + 0xa282ead8U);
}
}  // namespace
}  // namespace trireme
