#include "trainer/step_log.h"

#include <algorithm>
#include <limits>
#include <system_error>

#include "core/files.h"
#include "core/formatted.h"
#include "core/log.h"
#include "trainer/progress_line.h"
#include "trainer/time_report.h"

namespace trireme {
namespace {
constexpr auto kLineInterval = std::chrono::seconds(10);
constexpr auto kProgressInterval = std::chrono::milliseconds(200);
constexpr uint64_t kPictureBytesMax = uint64_t{32} << 20;

void add_details(JsonLine& json, const StepResult& result) {
  if (result.prior_loss) json.add("prior_loss", *result.prior_loss);
  if (result.bounded_grad_norm) json.add("bounded_grad_norm", *result.bounded_grad_norm);
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();  // Written as null.
  json.add("noise_scale", result.noise ? result.noise->scale.value_or(kNone) : kNone);
  if (result.noise) {
    json.add("grad_signal", result.noise->signal).add("grad_noise", result.noise->noise);
  }
  if (result.loss_scale) json.add("loss_scale", *result.loss_scale);
  if (result.checksums) {
    json.add("grad_checksum", checksum_text(result.checksums->gradients))
        .add("param_checksum", checksum_text(result.checksums->parameters));
  }
}
}  // namespace

StepLog::StepLog(const Options& options)
    : options_(options),
      metrics_(options.run_dir / "metrics.jsonl", options.keep_bytes),
      tensorboard_(options.run_dir / "tensorboard",
                   options.is_resumed ? options.first_step : TensorboardFile::kKeepNothing,
                   options.hyper_parameters) {}

StepLog::~StepLog() { log::set_status(""); }

// Whatever numbers a line has, by whoever added them, go to TensorBoard too.
void StepLog::append(const JsonLine& line) {
  const std::string text = line.text();
  metrics_.append(text);
  tensorboard_.add_metrics(text);
}

void StepLog::step(const StepResult& result) {
  const int64_t samples = options_.global_batch.samples_after(result.step);
  const double epoch = static_cast<double>(samples) / static_cast<double>(options_.num_training);
  const double rate =
      static_cast<double>(options_.global_batch.global_batch(result.step)) / result.step_seconds;
  JsonLine json;
  json.add("kind", std::string("train"))
      .add("step", result.step)
      .add("epoch", epoch)
      .add("samples", samples)
      .add("loss", result.loss)
      .add("lr", result.lr)
      .add("grad_norm", result.grad_norm)
      .add("step_seconds", result.step_seconds)
      .add("data_seconds", result.data_seconds)
      .add("comm_exposed_seconds", result.comm_exposed_seconds)
      .add("images_per_second", rate);
  add_details(json, result);
  append(json);
  smooth(result);
  show_line(result, epoch, rate);
  show_progress(result);
}

// Means over about the last 20 steps; over all of them while there are fewer.
void StepLog::smooth(const StepResult& result) {
  ++num_seen_;
  const double share = std::max(0.05, 1.0 / static_cast<double>(num_seen_));
  const auto blend = [share](double& mean, double value) { mean += share * (value - mean); };
  blend(smoothed_.loss, result.loss);
  blend(smoothed_.step_seconds, result.step_seconds);
  blend(smoothed_.data_seconds, result.data_seconds);
  blend(smoothed_.comm_exposed_seconds, result.comm_exposed_seconds);
}

void StepLog::show_line(const StepResult& result, double epoch, double rate) {
  const auto now = Clock::now();
  const bool is_last = result.step == options_.num_steps;
  if (has_header_ && !is_last && now - last_line_ < kLineInterval) return;
  const auto say = log::terminal_columns() > 0 ? log::to_file : log::info;
  if (!has_header_) {
    say("    step      loss  grad norm         lr   epoch  images/s  data ms  comm ms  time left");
    has_header_ = true;
  }
  last_line_ = now;
  const double left =
      smoothed_.step_seconds * static_cast<double>(options_.num_steps - result.step);
  say(formatted("%8lld  %8.5f  %9.4f  %9.3e  %6.2f  %8.1f  %7.1f  %7.1f  %9s",
                static_cast<long long>(result.step), result.loss, result.grad_norm, result.lr,
                epoch, rate, result.data_seconds * 1e3, result.comm_exposed_seconds * 1e3,
                duration_text(left).c_str()));
}

void StepLog::show_progress(const StepResult& result) {
  const int columns = log::terminal_columns();
  const auto now = Clock::now();
  if (columns == 0 || now - last_progress_ < kProgressInterval) return;
  last_progress_ = now;
  const double seconds = std::max(smoothed_.step_seconds, 1e-9);
  log::set_status(progress_line(
      {.step = result.step,
       .num_steps = options_.num_steps,
       .loss = smoothed_.loss,
       .lr = result.lr,
       .grad_norm = result.grad_norm,
       .images_per_second =
           static_cast<double>(options_.global_batch.global_batch(result.step)) / seconds,
       .data_share = smoothed_.data_seconds / seconds,
       .comm_share = smoothed_.comm_exposed_seconds / seconds,
       .seconds_left = seconds * static_cast<double>(options_.num_steps - result.step)},
      columns - 1));
}

void StepLog::activity(const std::string& what) {
  if (log::terminal_columns() == 0) return;
  log::set_status(what);
  last_progress_ = {};  // The next step shows itself at once.
}

void StepLog::picture(int64_t step, const std::string& name, const std::filesystem::path& png) {
  std::error_code error;
  const auto size = std::filesystem::file_size(png, error);
  if (error || size > kPictureBytesMax) return;
  tensorboard_.add_picture(step, name, read_text_file(png, "picture", kPictureBytesMax));
}

void StepLog::sync() {
  metrics_.sync();
  tensorboard_.flush();
}

void StepLog::evaluation(int64_t step, const EvalMetrics& metrics) {
  JsonLine line;
  line.add("kind", std::string("eval")).add("step", step);
  for (const auto& [name, value] : metrics) line.add(name.c_str(), value);
  append(line);
  std::string message;
  const auto say = [&](const char* name, const char* format) {
    const auto value = find_metric(metrics, name);
    if (value) message += (message.empty() ? "" : ", ") + formatted(format, unsigned_nan(*value));
  };
  say("val_loss", "validation loss %.5f");
  say("val_loss_ema", "with EMA %.5f");
  say("overfit_gap", "training minus validation %+.5f");
  say("nearest_train_distance", "nearest training latents at %.3f");
  say("memorised_fraction", "memorised %.3g");
  for (const char* score : {"fid", "kid", "clip_score", "latent_frechet"}) {
    say(score, (std::string(score) + " %.6g").c_str());
  }
  if (!message.empty()) {
    log::info(formatted("%8lld  ", static_cast<long long>(step)) + message);
  }
}

void StepLog::event(int64_t step, const std::string& what, const JsonLine& details) {
  metrics_.append(JsonLine()
                      .add("kind", std::string("event"))
                      .add("step", step)
                      .add("what", what)
                      .add_all(details)
                      .text());
}
}  // namespace trireme
