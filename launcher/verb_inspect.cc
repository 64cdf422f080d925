#include <charconv>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "data/dataset.h"
#include "data/sampler.h"
#include "launcher/command_line.h"
#include "launcher/inspect.h"
#include "launcher/verbs.h"
#include "trainer/run_plan.h"
#include "trainer/session.h"

namespace trireme {
namespace {
struct InspectArguments {
  ConfigArguments config;  // `file` is PATH.
  InspectDepth depth = InspectDepth::kHeaders;
  std::string order;  // "A:B"
  int ranks = 1;
};

// "A:B" with 1 <= A <= B.
std::pair<int64_t, int64_t> parse_steps(std::string_view text) {
  const size_t colon = text.find(':');
  const auto number = [](std::string_view part) -> int64_t {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    return error == std::errc() && end == part.data() + part.size() ? value : 0;
  };
  const int64_t first = colon == text.npos ? 0 : number(text.substr(0, colon));
  const int64_t last = colon == text.npos ? 0 : number(text.substr(colon + 1));
  if (first < 1 || last < first) {
    throw UsageError(
        "--order takes A:B, the first and the last step, from 1, as in --order 1:20; it was given "
        "'" +
        std::string(text) + "'.");
  }
  return {first, last};
}

void print_order(const InspectArguments& arguments) {
  const auto [first, last] = parse_steps(arguments.order);
  const Config config = load(arguments.config).config;
  const auto dataset = LatentDataset::open({config.data.train.begin(), config.data.train.end()});
  const Split split(dataset->classes(), config.data.validation_fraction, config.run.seed);
  const auto repeats = sample_repeats(*dataset, config.data);
  const int64_t num_training = TrainingSamples(dataset->classes(), split, repeats).num_draws();
  if (num_training == 0) {
    throw UsageError("data.validation_fraction leaves no sample to train on. Lower it.");
  }
  const RunPlan plan = plan_run(config, arguments.ranks, num_training);
  const auto order = config.data.shuffle ? GlobalBatchSampler::Options::Order::kShuffled
                                         : GlobalBatchSampler::Options::Order::kByIndex;
  const GlobalBatchSampler sampler(dataset->classes(), split,
                                   {.seed = config.run.seed,
                                    .global_batch = plan.global_batch,
                                    .order = order,
                                    .repeats = repeats});
  write_order(std::cout, sampler, first, last, plan.num_pieces);
}

int inspect(const InspectArguments& arguments) {
  if (!arguments.order.empty()) {
    print_order(arguments);
  } else {
    inspect_path(arguments.config.file, arguments.depth, std::cout);
  }
  if (!std::cout.flush()) throw UsageError("cannot write to the standard output. Is there space?");
  return static_cast<int>(ExitCode::kDone);
}
}  // namespace

void add_inspect_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<InspectArguments>();
  auto* verb = app.add_subcommand(
      "inspect", "Say what a dataset, diffusers folder, checkpoint, weights file or run holds");
  verb->add_option("PATH", arguments->config.file,
                   "A dataset (.h5), diffusers folder, checkpoint, weights file, run directory, or "
                   "configuration (.toml)")
      ->required();
  verb->add_option("--set", arguments->config.set, "Overrides a key of a configuration; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_option("--run-dir", arguments->config.run_dir, "Run directory, instead of run.dir")
      ->type_name("DIR");
  verb->add_flag_callback(
      "--verify", [arguments] { arguments->depth = InspectDepth::kEveryByte; },
      "Read every byte and check it");
  verb->add_option("--order", arguments->order,
                   "With a configuration: print step, position, shard, epoch and sample, "
                   "tab-separated, for each "
                   "sample that steps A to B consume")
      ->type_name("A:B");
  verb->add_option("-n,--ranks", arguments->ranks,
                   "With --order: the number of ranks that it is for")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb->footer(
      "Example:\n  trireme inspect emoji.h5 --verify\n  trireme inspect configs/demo.toml --order "
      "1:10");
  verb->callback([arguments, &action] { action = [arguments] { return inspect(*arguments); }; });
}
}  // namespace trireme
