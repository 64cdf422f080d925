#include "core/log.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include "core/error.h"
#include "core/terminal.h"

namespace trireme::log {
namespace {
using Sink = spdlog::sinks::sink;

// stderr, with a last line that is rewritten where a terminal shows it.
class ConsoleSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ConsoleSink(std::optional<Terminal> terminal) : terminal_(std::move(terminal)) {}
  ~ConsoleSink() override {
    if (!status_.empty()) put(kErase);
  }
  ConsoleSink(const ConsoleSink&) = delete;
  ConsoleSink& operator=(const ConsoleSink&) = delete;

  [[nodiscard]] int columns() const { return terminal_ ? terminal_->columns() : 0; }

  void set_status(std::string_view text) {
    const std::lock_guard lock(mutex_);
    if (!terminal_) return;
    // The last column stays free: a character there may break the line.
    text = text.substr(0, static_cast<size_t>(std::max(0, terminal_->columns() - 1)));
    put(std::string(kErase) + std::string(text));
    status_ = text;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    const std::string_view text(line.data(), line.size());
    // One write: ranks share the terminal.
    status_.empty() ? put(text) : put(kErase + std::string(text) + status_);
  }
  void flush_() override { std::fflush(stderr); }

 private:
  static constexpr const char* kErase = "\r\x1b[K";
  static void put(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  }

  std::optional<Terminal> terminal_;
  std::string status_;
};

// "warning: " and "error: " before the text; info is plain. What a person should see comes with
// `origin` in front.
class Prefix : public spdlog::custom_flag_formatter {
 public:
  explicit Prefix(std::string origin) : origin_(std::move(origin)) {}
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    if (message.level < spdlog::level::warn) return;
    const std::string prefix =
        origin_ + (message.level == spdlog::level::warn ? "warning: " : "error: ");
    out.append(prefix.data(), prefix.data() + prefix.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<Prefix>(origin_);
  }

 private:
  std::string origin_;
};

std::unique_ptr<spdlog::pattern_formatter> make_formatter(const std::string& pattern,
                                                          const std::string& origin) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<Prefix>('*', origin).set_pattern(pattern);
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
  Console console = Console::kNormal;
  std::weak_ptr<ConsoleSink> sink = {};
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
  Identity& me = identity();
  const bool talks = me.rank == 0 && me.console == Console::kNormal;
  auto console =
      std::make_shared<ConsoleSink>(talks ? Terminal::of_stderr() : std::optional<Terminal>());
  console->set_formatter(make_formatter("%*%v", rank_prefix()));
  console->set_level(talks ? spdlog::level::info : spdlog::level::warn);
  me.sink = console;
  auto logger = std::make_shared<spdlog::logger>("trireme", std::move(console));
  logger->set_level(spdlog::level::debug);
  logger->flush_on(spdlog::level::debug);
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

void configure(int rank, int world_size, Console console) {
  logger();
  identity() = {.rank = rank, .world_size = world_size, .console = console};
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
  sink->set_formatter(make_formatter("%Y-%m-%d %H:%M:%S.%e " + rank_prefix() + "%*%v", ""));
  // Other ranks' files are for what rank 0 does not say.
  sink->set_level(me.rank == 0 ? spdlog::level::debug : spdlog::level::warn);
  logger().sinks().push_back(std::move(sink));
}

void info(std::string_view text) { write(spdlog::level::info, text); }
void warn(std::string_view text) { write(spdlog::level::warn, text); }
void error(std::string_view text) { write(spdlog::level::err, text); }
void to_file(std::string_view text) { write(spdlog::level::debug, text); }
void flush() { logger().flush(); }

int terminal_columns() {
  const auto sink = identity().sink.lock();
  return sink ? sink->columns() : 0;
}

void set_status(std::string_view text) {
  if (const auto sink = identity().sink.lock()) sink->set_status(text);
}
}  // namespace trireme::log
