#include "trainer/trace_file.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/formatted.h"

namespace trireme {
namespace {
// Perfetto knows a thread by its number alone, whichever its process, takes 0 for the idle thread
// and a process's own number for its main thread: so no two tracks of a file share a number, and
// none has a rank's.
int64_t thread_id(int rank, int32_t track) {
  constexpr int64_t kTracksMax = 1000;
  return 1000000 + rank * kTracksMax + track;
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string metadata(const char* name, int rank, int32_t track, const std::string& value) {
  return R"({"ph":"M","name":")" + std::string(name) + R"(","pid":)" + std::to_string(rank) +
         R"(,"tid":)" + std::to_string(thread_id(rank, track)) + R"(,"args":{)" + value + "}}";
}

int64_t nanoseconds_since(std::chrono::steady_clock::time_point origin,
                          std::chrono::steady_clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(at - origin).count();
}

std::string microseconds(int64_t nanoseconds) {
  return formatted("%lld.%03lld", static_cast<long long>(nanoseconds / 1000),
                   static_cast<long long>(nanoseconds % 1000));
}
}  // namespace

std::string trace_events(int rank, const std::string& host, const std::vector<std::string>& tracks,
                         std::vector<TraceSpan> spans,
                         std::chrono::steady_clock::time_point origin) {
  std::string text = metadata("process_name", rank, 0,
                              "\"name\":" + quoted("rank " + std::to_string(rank) + " on " + host));
  text += ",\n" + metadata("process_sort_index", rank, 0, "\"sort_index\":" + std::to_string(rank));
  for (size_t t = 0; t < tracks.size(); ++t) {
    const auto track = static_cast<int32_t>(t);
    text += ",\n" + metadata("thread_name", rank, track, "\"name\":" + quoted(tracks[t]));
    text += ",\n" +
            metadata("thread_sort_index", rank, track, "\"sort_index\":" + std::to_string(track));
  }
  std::ranges::sort(spans, [](const TraceSpan& a, const TraceSpan& b) {
    return a.track != b.track ? a.track < b.track : a.begin < b.begin;
  });
  int32_t track = -1;
  int64_t free_from = 0;  // On this track.
  for (const TraceSpan& span : spans) {
    if (span.track != track) free_from = 0;
    track = span.track;
    const int64_t begin = std::max(free_from, nanoseconds_since(origin, span.begin));
    const int64_t end = nanoseconds_since(origin, span.end);
    if (nanoseconds_since(origin, span.begin) < 0 || end <= begin) continue;
    free_from = end;
    text += ",\n{\"ph\":\"X\",\"name\":" + quoted(span.name) + ",\"pid\":" + std::to_string(rank) +
            ",\"tid\":" + std::to_string(thread_id(rank, track)) +
            ",\"ts\":" + microseconds(begin) + ",\"dur\":" + microseconds(end - begin) + "}";
  }
  return text;
}

std::string trace_json(const std::vector<std::string>& events_by_rank) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (size_t rank = 0; rank < events_by_rank.size(); ++rank) {
    text += (rank == 0 ? "" : ",\n") + events_by_rank[rank];
  }
  return text + "\n]}\n";
}
}  // namespace trireme
