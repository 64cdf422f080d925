#include <cstdlib>
#include <functional>

#include <CLI/CLI.hpp>

#include "launcher/build_facts.h"
#include "launcher/command_line.h"
#include "launcher/verbs.h"

int main(int argc, char** argv) {
  // LibTorch then asks for huge pages for tensors of 2 MiB and more, where the kernel gives them on
  // request: an AdamW update takes a fifth less time, a training step 3 % (docs/bench.md).
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);

  CLI::App app("Trireme fine-tunes latent diffusion models on many ranks (MPI, NCCL, HDF5).",
               "trireme");
  app.set_version_flag("--version", [] { return trireme::version_text(); });
  app.require_subcommand(1);
  app.footer(
      "trireme VERB --help shows one verb. Example:\n"
      "  trireme launch configs/demo.toml -n 2\n"
      "Exit codes: 0 done, 2 usage, 3 input file, 4 rank or network lost, 5 diverged, 75 stopped "
      "after a checkpoint.");

  std::function<int()> action;
  trireme::add_train_verb(app, action);
  trireme::add_launch_verb(app, action);
  trireme::add_pack_verb(app, action);
  trireme::add_inspect_verb(app, action);
  trireme::add_check_verb(app, action);
  trireme::add_eval_verb(app, action);
  trireme::add_sample_verb(app, action);
  trireme::add_export_verb(app, action);
  trireme::add_study_verb(app, action);
  trireme::add_plan_verb(app, action);
  trireme::add_report_verb(app, action);
  trireme::add_audit_verb(app, action);
  trireme::add_bench_verb(app, action);
  trireme::add_doctor_verb(app, action);
  trireme::add_completion_verb(app, action);

  return trireme::run_reporting_errors([&] {
    const int code = trireme::parse_command_line(app, argc, argv);
    return code >= 0 ? code : action();
  });
}
