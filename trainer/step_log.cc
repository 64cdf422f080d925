#include "trainer/step_log.h"

#include <cstdio>

#include "core/log.h"

namespace trireme {
namespace {
std::string duration_text(double seconds) {
  const auto total = static_cast<int64_t>(seconds + 0.5);
  char text[32];
  if (total >= 3600) {
    std::snprintf(text, sizeof text, "%lldh%02lldm", static_cast<long long>(total / 3600),
                  static_cast<long long>(total / 60 % 60));
  } else {
    std::snprintf(text, sizeof text, "%lldm%02llds", static_cast<long long>(total / 60),
                  static_cast<long long>(total % 60));
  }
  return text;
}
}  // namespace

StepLog::StepLog(const Options& options)
    : options_(options), metrics_(options.run_dir / "metrics.jsonl", options.keep_bytes) {}

void StepLog::step(const StepResult& result) {
  const int64_t samples = result.step * options_.global_batch;
  const double epoch = static_cast<double>(samples) / static_cast<double>(options_.num_training);
  const double rate = static_cast<double>(options_.global_batch) / result.step_seconds;
  metrics_.append(JsonLine()
                      .add("kind", std::string("train"))
                      .add("step", result.step)
                      .add("epoch", epoch)
                      .add("samples", samples)
                      .add("loss", result.loss)
                      .add("lr", result.lr)
                      .add("grad_norm", result.grad_norm)
                      .add("step_seconds", result.step_seconds)
                      .add("data_seconds", result.data_seconds)
                      .add("comm_exposed_seconds", result.comm_exposed_seconds)
                      .add("images_per_second", rate)
                      .text());

  smoothed_step_seconds_ = smoothed_step_seconds_ == 0.0
                               ? result.step_seconds
                               : 0.95 * smoothed_step_seconds_ + 0.05 * result.step_seconds;
  const auto now = std::chrono::steady_clock::now();
  const bool is_last = result.step == options_.num_steps;
  if (has_header_ && !is_last && now - last_line_ < std::chrono::seconds(2)) return;
  if (!has_header_) {
    log::info("    step      loss  grad norm         lr   epoch  images/s  data ms  time left");
    has_header_ = true;
  }
  last_line_ = now;
  char line[160];
  std::snprintf(
      line, sizeof line, "%8lld  %8.5f  %9.4f  %9.3e  %6.2f  %8.1f  %7.1f  %9s",
      static_cast<long long>(result.step), result.loss, result.grad_norm, result.lr, epoch, rate,
      result.data_seconds * 1e3,
      duration_text(smoothed_step_seconds_ * static_cast<double>(options_.num_steps - result.step))
          .c_str());
  log::info(line);
}

void StepLog::evaluation(int64_t step, const ValidationResult& result,
                         const ValidationResult* ema) {
  JsonLine line;
  line.add("kind", std::string("eval")).add("step", step).add("val_loss", result.loss);
  if (ema != nullptr) line.add("val_loss_ema", ema->loss);
  for (size_t band = 0; band < result.band_losses.size(); ++band) {
    line.add(("val_loss_band_" + std::to_string(band)).c_str(), result.band_losses[band]);
  }
  line.add("val_samples", result.num_samples);
  metrics_.append(line.text());
  char text[160];
  std::snprintf(text, sizeof text, "%8lld  validation loss %.5f", static_cast<long long>(step),
                result.loss);
  std::string message = text;
  if (ema != nullptr) {
    std::snprintf(text, sizeof text, ", with EMA %.5f", ema->loss);
    message += text;
  }
  log::info(message);
}

void StepLog::event(int64_t step, const std::string& what) {
  metrics_.append(
      JsonLine().add("kind", std::string("event")).add("step", step).add("what", what).text());
}
}  // namespace trireme
