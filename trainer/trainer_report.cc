// The part of Trainer that tells a person what it does: header, start event, time table.
#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include <torch/version.h>

#include "core/formatted.h"
#include "core/log.h"
#include "trainer/progress_line.h"
#include "trainer/time_report.h"
#include "trainer/torch_api.h"
#include "trainer/trainer.h"

namespace trireme {
namespace {
std::string millions(int64_t count) {
  return count < 100000 ? counted(count) : formatted("%.2f M", static_cast<double>(count) / 1e6);
}

std::string plural(int64_t count, const char* noun) {
  return counted(count) + " " + noun + (count == 1 ? "" : "s");
}

const char* name_of(LrScheduleName name) {
  switch (name) {
    case LrScheduleName::kConstant:
      return "constant";
    case LrScheduleName::kLinear:
      return "linear";
    case LrScheduleName::kCosine:
      return "cosine";
    case LrScheduleName::kPolynomial:
      return "polynomial";
    case LrScheduleName::kWsd:
      return "warm-up, stable, decay";
    case LrScheduleName::kCosineWithRestarts:
      return "cosine with restarts";
    case LrScheduleName::kInverseSqrt:
      return "inverse square root";
  }
  return "";
}

std::string every(int64_t steps, const char* otherwise) {
  return steps == 0 ? otherwise : steps == 1 ? "every step" : "every " + counted(steps) + " steps";
}

// Hosts in the order of ranks, each once: "node1, node2".
std::string hosts_text(const std::vector<std::string>& hosts) {
  std::vector<std::string> distinct;
  for (const auto& host : hosts) {
    if (std::ranges::find(distinct, host) == distinct.end()) distinct.push_back(host);
  }
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(distinct.size(), 4); ++i) {
    text += (i == 0 ? "" : ", ") + distinct[i];
  }
  return distinct.size() > 4 ? text + formatted(" and %zu more", distinct.size() - 4) : text;
}

std::string shapes_text(const LatentDataset& dataset) {
  const LatentShape& shape = dataset.classes().front().shape;
  std::string text =
      formatted("latents %lld x %lld x %lld", static_cast<long long>(shape.channels),
                static_cast<long long>(shape.height), static_cast<long long>(shape.width));
  const size_t num_more = dataset.classes().size() - 1;
  return num_more == 0 ? text : text + formatted(" and %zu more shapes", num_more);
}
}  // namespace

void Trainer::announce() const {
  const auto hosts = mpi_.gather_strings(mpi_.host_name());
  if (mpi_.rank() != 0) return;
  int64_t num_trained = 0;
  for (const auto& bucket : buckets_->flat()) {
    for (const auto& segment : bucket.segments) num_trained += segment.num_elements;
  }
  int64_t num_parameters = 0;
  for (const auto& [name, tensor] : session_.model->named_parameters())
    num_parameters += tensor.numel();
  const std::string source =
      config_.model.weights.empty() ? config_.model.config + ", random" : config_.model.weights;
  const bool is_reproducible = config_.parallel.shards > 0;
  log::info("run    " + options_.run_dir.string() + " on " + hosts_text(hosts) + ": " +
            plural(mpi_.world_size(), "rank") + " (" + std::string(comm_->backend()) + "), " +
            session_.device.substr(0, session_.device.find(':')) +
            (session_.device == "cpu" ? ", " + plural(torch::get_num_threads(), "thread") + " each"
                                      : ""));
  log::info("model  " + source + ": " + millions(num_parameters) + " parameters, " +
            (num_trained == num_parameters ? "all trained" : millions(num_trained) + " trained") +
            formatted(" in %zu bucket%s", buckets_->flat().size(),
                      buckets_->flat().size() == 1 ? "" : "s"));
  log::info("data   " + counted(session_.num_training()) + " training and " +
            counted(session_.num_validation()) + " validation samples, " +
            shapes_text(*session_.dataset));
  log::info("batch  " + counted(plan_.first_batch()) + " = " +
            plural(plan_.num_pieces, is_reproducible ? "shard" : "rank") + " x " +
            plural(plan_.micros_per_piece(1), "micro-batch") + " x " + counted(plan_.micro) +
            (is_reproducible ? ", the same bits at any number of ranks" : ""));
  for (const auto& phase : plan_.global_batch.phases()) {
    if (phase.first_step == 1 || phase.first_step > plan_.steps) continue;
    log::info("       from step " + counted(phase.first_step) + " " + counted(phase.global_batch) +
              ", lr " + scale_learning_rate(config_.optim, phase.global_batch).rule);
  }
  log::info("lr     " + scaled_.rule + "; " + name_of(plan_.lr_schedule.name) + ", warm-up " +
            plural(plan_.lr_schedule.warmup_steps, "step"));
  const int64_t num_samples = plan_.global_batch.samples_after(plan_.steps);
  log::info("plan   " + plural(plan_.steps, "step") + ", " + counted(num_samples) + " samples, " +
            formatted("%.4g", static_cast<double>(num_samples) /
                                  static_cast<double>(session_.num_training())) +
            " epochs; evaluation " + every(config_.eval.every_steps, "off") + ", checkpoint " +
            every(config_.checkpoint.every_steps, "at the end"));
  if (const int idle = num_idle_gpus(mpi_); idle > 0) {
    log::warn(std::to_string(idle) +
              " GPU(s) of this machine stay idle: `trireme launch CONFIG` starts one rank a GPU");
  }
  if (plan_.lr_schedule.warmup_steps > plan_.steps) {
    log::warn("the warm-up of " + std::to_string(plan_.lr_schedule.warmup_steps) +
              " steps is longer than the run of " + std::to_string(plan_.steps) +
              " steps: the learning rate never reaches its value");
  }
  if (state_.step > 0) {
    log::info("going on after step " + std::to_string(state_.step) + " from " +
              options_.resume->filename().string());
  }
}

void Trainer::note_start() {
  const auto hosts = mpi_.gather_strings(mpi_.host_name());
  if (!log_) return;
  log_->event(state_.step, options_.resume ? "resume" : "start",
              JsonLine()
                  .add("ranks", static_cast<int64_t>(mpi_.world_size()))
                  .add("hosts", hosts_text(hosts))
                  .add("steps", plan_.steps)
                  .add("backend", std::string(comm_->backend()))
                  .add("device", session_.device.substr(0, session_.device.find(':')))
                  .add("version", options_.version)
                  .add("torch", std::string(TORCH_VERSION)));
}

void Trainer::report_time(double wall_seconds, const std::string& outcome) {
  const auto& mine = clock_.seconds();
  std::string packed(sizeof mine, '\0');
  std::memcpy(packed.data(), mine.data(), sizeof mine);
  const auto hosts = mpi_.gather_strings(mpi_.host_name());
  const auto seconds = mpi_.gather_strings(packed);
  if (!log_) return;
  TimeReport report{.ranks = {},
                    .wall_seconds = wall_seconds,
                    .num_steps = state_.step - first_step_,
                    .global_batch = 0};
  if (report.num_steps > 0) {  // The mean, where it grew.
    report.global_batch = (plan_.global_batch.samples_after(state_.step) -
                           plan_.global_batch.samples_after(first_step_)) /
                          report.num_steps;
  }
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    auto& entry = report.ranks.emplace_back(TimeReport::Rank{.host = hosts[rank]});
    std::memcpy(entry.seconds.data(), seconds[rank].data(), sizeof entry.seconds);
  }
  log_->activity("");
  if (report.num_steps == 0) return;
  for (const auto& line : time_table(report)) log::info(line);
  const auto notes = advise(report);
  for (const auto& note : notes) log::info("note: " + note);
  std::vector<std::string> names;
  std::vector<double> min, mean, max;
  for (const auto& phase : summarize(report)) {
    names.push_back(phase.name);
    min.push_back(phase.min);
    mean.push_back(phase.mean);
    max.push_back(phase.max);
  }
  log_->event(state_.step, "time",
              JsonLine()
                  .add("outcome", outcome)
                  .add("steps", report.num_steps)
                  .add("wall_seconds", wall_seconds)
                  .add("phases", names)
                  .add("min_seconds", min)
                  .add("mean_seconds", mean)
                  .add("max_seconds", max)
                  .add("notes", notes));
}
}  // namespace trireme
