#include "trainer/run_trace.h"

#include <utility>

#include "core/files.h"
#include "core/formatted.h"
#include "core/log.h"
#include "trainer/trace_file.h"

namespace trireme {

RunTrace::RunTrace(MpiEnvironment& mpi, const TraceOptions& options, const std::string& device,
                   std::filesystem::path run_dir)
    : mpi_(mpi), options_(options), device_trace_(device), run_dir_(std::move(run_dir)) {}

void RunTrace::before_step(int64_t step) {
  if (options_.first_step == 0) return;
  const bool is_asked_for =
      step >= options_.first_step && step < options_.first_step + options_.num_steps;
  if (!is_asked_for) write(step - 1);
  if (!is_asked_for || first_step_ > 0) return;
  first_step_ = step;
  mpi_.barrier();  // Ranks leave it together: that is the common time.
  origin_ = std::chrono::steady_clock::now();
  tracer_.switch_on();
  device_trace_.start();
}

void RunTrace::write(int64_t last_step) {
  if (!tracer_.is_on()) return;
  device_trace_.stop(tracer_);
  tracer_.switch_off();
  const auto events = mpi_.gather_strings(
      trace_events(mpi_.rank(), mpi_.host_name(), tracer_.tracks(), tracer_.take(), origin_));
  mpi_.run_on_all_ranks([&] {
    if (mpi_.rank() != 0) return;
    const auto folder = run_dir_ / "trace";
    std::filesystem::create_directories(folder);
    const std::string name =
        formatted("steps-%08lld-%08lld.json", static_cast<long long>(first_step_),
                  static_cast<long long>(last_step));
    write_text_file_atomically(folder / name, trace_json(events));
    log::info("trace " + name + ", for ui.perfetto.dev or chrome://tracing");
  });
}
}  // namespace trireme
