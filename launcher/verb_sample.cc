#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/checkpoint_arguments.h"
#include "launcher/config_schema.h"
#include "launcher/report_table.h"
#include "launcher/sample_comparison.h"
#include "launcher/verbs.h"
#include "trainer/evaluate/sample_grid.h"

namespace trireme {
namespace {
enum class Content { kSamples, kComparison };

struct SampleArguments {
  CheckpointArguments checkpoint;
  CheckpointWeights weights = CheckpointWeights::kTrained;
  Content content = Content::kSamples;
  std::vector<std::string> prompts;
  std::optional<int64_t> count;
  std::optional<int64_t> steps;
  std::optional<double> guidance;
  std::optional<int64_t> seed;
  std::optional<double> lora_weight;
  std::string out = "samples.png";
};

template <typename T>
void override_key(std::vector<std::string>& set, const char* key, const std::optional<T>& value) {
  if (value) set.push_back(std::string(key) + "=" + toml_text(*value));
}

// The options as overrides, so that they pass the same checks.
CheckpointArguments with_options(const SampleArguments& arguments) {
  CheckpointArguments result = arguments.checkpoint;
  if (!arguments.prompts.empty()) {
    result.set.push_back("sample.prompts=" + toml_text(arguments.prompts));
    if (!arguments.count) {
      result.set.push_back("sample.count=" + std::to_string(arguments.prompts.size()));
    }
  }
  override_key(result.set, "sample.count", arguments.count);
  override_key(result.set, "sample.steps", arguments.steps);
  override_key(result.set, "sample.guidance", arguments.guidance);
  override_key(result.set, "sample.seed", arguments.seed);
  return result;
}

void write_picture(const std::filesystem::path& file, const std::vector<Image>& images,
                   int64_t columns) {
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_png(file, tile(images, columns));
}

std::filesystem::path require_vae(const Config& config) {
  if (const auto vae = find_vae(config)) return *vae;
  throw UsageError("samples cannot be decoded: there is no vae/ in or beside model.weights = '" +
                   config.model.weights +
                   "'. Give a diffusers folder that has one with --set sample.vae=DIR.");
}

void draw_samples(MpiEnvironment& mpi, Session& session, const std::filesystem::path& vae,
                  const std::string& out) {
  SamplePrompts prompts;
  mpi.run_on_all_ranks([&] { prompts = choose_prompts(session); });
  const at::Tensor latents = sample_latents(mpi, session, prompts);
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    const auto images = decode_images(vae, latents);
    const auto columns =
        static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(images.size()))));
    write_picture(out, images, columns);
    ReportTable table;
    table.heading(out);
    for (size_t i = 0; i < prompts.captions.size(); ++i) {
      table.row("row " + std::to_string(i / static_cast<size_t>(columns) + 1) + ", column " +
                    std::to_string(i % static_cast<size_t>(columns) + 1),
                one_line(prompts.captions[i]));
    }
    table.print(std::cout);
  });
}

int run_sample(MpiEnvironment& mpi, const SampleArguments& arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  const OpenedCheckpoint checkpoint = open_checkpoint(mpi, with_options(arguments));
  const std::string device = choose_device(mpi);
  std::optional<Session> session;
  std::filesystem::path vae;
  mpi.run_on_all_ranks([&] {
    if (checkpoint.config.sample.count == 0)
      throw UsageError("there is nothing to sample: sample.count is 0.");
    vae = require_vae(checkpoint.config);
    session = open_session(checkpoint.config, device, checkpoint.weights(arguments.weights));
    if (arguments.lora_weight) session->model->set_adapter_weight(*arguments.lora_weight);
  });
  if (arguments.content == Content::kSamples) {
    draw_samples(mpi, *session, vae, arguments.out);
  } else {
    const SampleComparison comparison = compare_samples(mpi, *session, vae);
    mpi.run_on_all_ranks([&] {
      if (mpi.rank() != 0) return;
      write_picture(arguments.out, comparison.images, SampleComparison::kColumns);
      ReportTable table;
      table.heading(arguments.out + ": before | after | real");
      report(comparison, table);
      table.print(std::cout);
    });
  }
  return static_cast<int>(ExitCode::kDone);
}
}  // namespace

void add_sample_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<SampleArguments>();
  auto* verb =
      app.add_subcommand("sample", "Draw samples from a checkpoint into a PNG, on all ranks");
  add_checkpoint_arguments(*verb, arguments->checkpoint);
  verb->add_option("--prompt", arguments->prompts,
                   "Text to draw; repeatable. Default: captions of the data")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_option("--count", arguments->count, "Number of samples");
  verb->add_option("--steps", arguments->steps, "DDIM steps");
  verb->add_option("--guidance", arguments->guidance, "Classifier-free guidance; 1 is off");
  verb->add_option("--seed", arguments->seed, "Seed of the initial noise");
  verb->add_option("--lora-weight", arguments->lora_weight,
                   "Strength of the adapter: 0 is the base, 1 as trained")
      ->check(CLI::Number);
  verb->add_option("--out", arguments->out, "The picture to write")->capture_default_str();
  verb->add_flag_callback(
      "--ema", [arguments] { arguments->weights = CheckpointWeights::kAveraged; },
      "Use the averaged weights");
  verb->add_flag_callback(
      "--compare", [arguments] { arguments->content = Content::kComparison; },
      "One row a validation caption: before the training, after it, the real picture; with "
      "losses and each sample's distance to its nearest training picture");
  verb->footer(
      "Example:\n  mpirun -np 2 trireme sample runs/emoji --prompt 'a red fish' --count 4 --out "
      "fish.png");
  verb->callback([arguments, &action] {
    action = [arguments] {
      return run_as_rank([&](MpiEnvironment& mpi) { return run_sample(mpi, *arguments); });
    };
  });
}
}  // namespace trireme
