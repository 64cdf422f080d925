#include "core/log.h"

#include <memory>
#include <mutex>
#include <string>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "core/error.h"

namespace trireme::log {
namespace {
using Sink = spdlog::sinks::sink;

// "warning: " and "error: " before the text on the console; info is plain.
class LevelPrefix : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string_view prefix = message.level == spdlog::level::warn  ? "warning: "
                                    : message.level >= spdlog::level::err ? "error: "
                                                                          : "";
    out.append(prefix.data(), prefix.data() + prefix.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<LevelPrefix>();
  }
};

std::unique_ptr<spdlog::pattern_formatter> make_formatter(const std::string& pattern) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<LevelPrefix>('*').set_pattern(pattern);
  return formatter;
}

// A file that comes into being with its first line.
class LazyFileSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit LazyFileSink(std::string file) : file_(std::move(file)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (!helper_) {
      helper_ = std::make_unique<spdlog::details::file_helper>();
      helper_->open(file_, false);
    }
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    helper_->write(line);
  }
  void flush_() override {
    if (helper_) helper_->flush();
  }

 private:
  std::string file_;
  std::unique_ptr<spdlog::details::file_helper> helper_;
};

// Who this process is. Beside spdlog's own registry, which is the process's too.
struct Identity {
  int rank = 0;
  int world_size = 1;
};
Identity& identity() {
  static Identity value;
  return value;
}

std::string rank_prefix() {
  const Identity& me = identity();
  return me.world_size > 1 ? "[rank " + std::to_string(me.rank) + "] " : "";
}

std::shared_ptr<spdlog::logger> make_logger() {
  auto console = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  console->set_formatter(make_formatter(rank_prefix() + "%*%v"));
  console->set_level(identity().rank == 0 ? spdlog::level::info : spdlog::level::warn);
  auto logger = std::make_shared<spdlog::logger>("trireme", console);
  logger->set_level(spdlog::level::info);
  logger->flush_on(spdlog::level::info);
  return logger;
}

// spdlog's default logger, replaced by ours at first use.
spdlog::logger& logger() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (spdlog::default_logger_raw()->name() != "trireme")
      spdlog::set_default_logger(make_logger());
  });
  return *spdlog::default_logger_raw();
}

void write(spdlog::level::level_enum level, std::string_view text) {
  logger().log(level, spdlog::string_view_t(text.data(), text.size()));
}
}  // namespace

void configure(int rank, int world_size) {
  logger();
  identity() = {.rank = rank, .world_size = world_size};
  spdlog::set_default_logger(make_logger());
}

void add_file(const std::filesystem::path& file) {
  const Identity me = identity();
  std::shared_ptr<Sink> sink;
  if (me.rank == 0) {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
    } catch (const spdlog::spdlog_ex& error) {
      throw UsageError("cannot write the log \"" + file.string() + "\": " + error.what() +
                       ". Choose a run directory that can be written to.");
    }
  } else {
    const std::string name =
        file.stem().string() + ".rank" + std::to_string(me.rank) + file.extension().string();
    sink = std::make_shared<LazyFileSink>((file.parent_path() / name).string());
  }
  sink->set_formatter(make_formatter("%Y-%m-%d %H:%M:%S.%e " + rank_prefix() + "%*%v"));
  // Other ranks' files are for what rank 0 does not say.
  sink->set_level(me.rank == 0 ? spdlog::level::info : spdlog::level::warn);
  logger().sinks().push_back(std::move(sink));
}

void info(std::string_view text) { write(spdlog::level::info, text); }
void warn(std::string_view text) { write(spdlog::level::warn, text); }
void error(std::string_view text) { write(spdlog::level::err, text); }
void flush() { logger().flush(); }
}  // namespace trireme::log
