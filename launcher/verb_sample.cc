#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/formatted.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/checkpoint_arguments.h"
#include "launcher/command_line.h"
#include "launcher/config_schema.h"
#include "launcher/report_table.h"
#include "launcher/sample_comparison.h"
#include "launcher/verbs.h"
#include "trainer/evaluate/sample_grid.h"
#include "trainer/evaluate/sampling.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;

enum class Content { kSamples, kComparison };

struct SampleArguments {
  CheckpointArguments checkpoint;
  CheckpointWeights weights = CheckpointWeights::kTrained;
  Content content = Content::kSamples;
  std::vector<std::string> prompts;
  std::string prompts_file;
  std::optional<std::string> negative_prompt;
  std::optional<int64_t> count;
  std::optional<std::string> sampler;
  std::optional<int64_t> steps;
  std::optional<double> guidance;
  std::optional<double> guidance_rescale;
  std::optional<int64_t> seed;
  std::optional<double> lora_weight;
  std::string out = "samples.png";
};

template <typename T>
void override_key(std::vector<std::string>& set, const char* key, const std::optional<T>& value) {
  if (value) set.push_back(std::string(key) + "=" + toml_text(*value));
}

// One prompt a line; empty lines are skipped.
std::vector<std::string> read_prompts(const std::string& file) {
  std::ifstream stream(file);
  std::vector<std::string> prompts;
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.empty()) {
    throw InputError("--prompts " + file +
                     " cannot be read or holds no prompt. Give a text file with a prompt a line.");
  }
  return prompts;
}

// The options as overrides, so that they pass the same checks.
CheckpointArguments with_options(const SampleArguments& arguments) {
  CheckpointArguments result = arguments.checkpoint;
  std::vector<std::string> prompts = arguments.prompts;
  if (!arguments.prompts_file.empty()) {
    const auto more = read_prompts(arguments.prompts_file);
    prompts.insert(prompts.end(), more.begin(), more.end());
  }
  if (!prompts.empty()) {
    result.set.push_back("sample.prompts=" + toml_text(prompts));
    if (!arguments.count) result.set.push_back("sample.count=" + std::to_string(prompts.size()));
  }
  override_key(result.set, "sample.negative_prompt", arguments.negative_prompt);
  override_key(result.set, "sample.count", arguments.count);
  override_key(result.set, "sample.sampler", arguments.sampler);
  override_key(result.set, "sample.steps", arguments.steps);
  override_key(result.set, "sample.guidance", arguments.guidance);
  override_key(result.set, "sample.guidance_rescale", arguments.guidance_rescale);
  override_key(result.set, "sample.seed", arguments.seed);
  return result;
}

// --out names the grid, or a folder; the single pictures lie in a folder.
struct OutputPlaces {
  fs::path grid;
  fs::path folder;
};

OutputPlaces places_of(const fs::path& out) {
  if (out.extension() != ".png") return {.grid = out / "grid.png", .folder = out};
  return {.grid = out, .folder = fs::path(out).replace_extension()};
}

void create_folder(const fs::path& folder) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error && !fs::is_directory(folder)) {
    throw UsageError("cannot create the folder " + folder.string() + " (" + error.message() +
                     "). Choose another --out.");
  }
}

fs::path require_vae(const Config& config) {
  if (const auto vae = find_vae(config)) return *vae;
  throw UsageError("samples cannot be decoded: there is no vae/ in or beside model.weights = '" +
                   config.model.weights +
                   "'. Give a diffusers folder that has one with --set sample.vae=DIR.");
}

// Which weights draw, for the texts of the pictures.
std::vector<ImageText> origin_of(const OpenedCheckpoint& checkpoint,
                                 const SampleArguments& arguments) {
  const bool is_average = arguments.weights == CheckpointWeights::kAveraged;
  std::vector<ImageText> origin = {{"checkpoint", checkpoint.folder.string()},
                                   {"step", std::to_string(checkpoint.state.step)},
                                   {"weights", is_average ? "averaged" : "trained"}};
  if (checkpoint.config.adapter.type != "none")
    origin.push_back({"lora_weight", format_number(arguments.lora_weight.value_or(1.0))});
  return origin;
}

void write_samples(const Session& session, const SamplePrompts& prompts,
                   const std::vector<Image>& images, const OutputPlaces& places,
                   const std::vector<ImageText>& origin) {
  create_folder(places.folder);
  create_folder(places.grid.parent_path());
  const int64_t columns = square_columns(images.size());
  write_png(places.grid, tile(images, columns), describe_grid(session, prompts, origin));
  ReportTable table;
  table.heading(places.grid.string());
  for (size_t i = 0; i < images.size(); ++i) {
    const fs::path file = places.folder / formatted("%05zu.png", i);
    write_png(file, images[i], describe_sample(session, prompts, static_cast<int64_t>(i), origin));
    table.row(file.string(), one_line(prompts.captions[i]));
  }
  table.print(std::cout);
}

void draw_samples(MpiEnvironment& mpi, Session& session, const fs::path& vae,
                  const std::string& out, const std::vector<ImageText>& origin) {
  SamplePrompts prompts;
  mpi.run_on_all_ranks([&] {
    prompts = choose_prompts(session);
    if (prompts.captions.empty()) {
      throw UsageError("there is nothing to sample: the data holds no captions. Give a --prompt.");
    }
  });
  const at::Tensor latents = sample_latents(mpi, session, prompts);
  const auto images = decode_images(mpi, vae, session.device, latents);
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() == 0) write_samples(session, prompts, images, places_of(out), origin);
  });
}

void draw_comparison(MpiEnvironment& mpi, Session& session, const fs::path& vae,
                     const std::string& out, const std::vector<ImageText>& origin) {
  const SampleComparison comparison = compare_samples(mpi, session, vae);
  mpi.run_on_all_ranks([&] {
    if (mpi.rank() != 0) return;
    create_folder(fs::path(out).parent_path());
    write_png(out, comparison_grid(comparison), describe_grid(session, comparison.prompts, origin));
    ReportTable table;
    table.heading(out + ": before | after | real");
    report(comparison, table);
    table.print(std::cout);
  });
}

int run_sample(MpiEnvironment& mpi, const SampleArguments& arguments) {
  log::configure(mpi.rank(), mpi.world_size());
  CheckpointArguments with_keys;
  mpi.run_on_all_ranks([&] { with_keys = with_options(arguments); });
  const OpenedCheckpoint checkpoint = open_checkpoint(mpi, with_keys);
  const std::string device = choose_device(mpi);
  std::optional<Session> session;
  fs::path vae;
  mpi.run_on_all_ranks([&] {
    if (checkpoint.config.sample.count == 0)
      throw UsageError("there is nothing to sample: sample.count is 0.");
    vae = require_vae(checkpoint.config);
    session = open_session(checkpoint.config, device, checkpoint.weights(arguments.weights));
    if (arguments.lora_weight) session->model->set_adapter_weight(*arguments.lora_weight);
  });
  const auto draw = arguments.content == Content::kSamples ? draw_samples : draw_comparison;
  draw(mpi, *session, vae, arguments.out, origin_of(checkpoint, arguments));
  return static_cast<int>(ExitCode::kDone);
}

void add_sampling_options(CLI::App& verb, SampleArguments& arguments) {
  verb.add_option("--prompt", arguments.prompts,
                  "Text to draw; repeatable. Default: captions of the data")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb.add_option("--prompts", arguments.prompts_file, "Text file with a prompt a line")
      ->type_name("FILE");
  verb.add_option("--negative-prompt", arguments.negative_prompt,
                  "What guidance leads away from; default: the empty prompt");
  verb.add_option("--count", arguments.count, "Pictures; they take the prompts in turn");
  verb.add_option("--sampler", arguments.sampler,
                  "auto, ddpm, ddim, euler, euler_ancestral, heun, dpmpp_2m or flow_euler")
      ->type_name("NAME");
  verb.add_option("--steps", arguments.steps, "Sampling steps");
  verb.add_option("--guidance", arguments.guidance, "Classifier-free guidance; 1 is off");
  verb.add_option("--guidance-rescale", arguments.guidance_rescale,
                  "Share of guided spread brought back, 0 to 1");
  verb.add_option("--seed", arguments.seed, "Seed of all noise");
}
}  // namespace

void add_sample_verb(CLI::App& app, std::function<int()>& action) {
  auto arguments = std::make_shared<SampleArguments>();
  auto* verb =
      app.add_subcommand("sample", "Draw samples from a checkpoint into PNGs, on all ranks");
  add_checkpoint_arguments(*verb, arguments->checkpoint);
  add_sampling_options(*verb, *arguments);
  verb->add_option("--lora-weight", arguments->lora_weight,
                   "Strength of the adapter: 0 is the base, 1 as trained")
      ->check(CLI::Number);
  verb->add_option("--out", arguments->out,
                   "The grid to write, with the single pictures in a folder beside it of the same "
                   "name; or a folder for all")
      ->capture_default_str();
  verb->add_flag_callback(
      "--ema", [arguments] { arguments->weights = CheckpointWeights::kAveraged; },
      "Use the averaged weights");
  verb->add_flag_callback(
      "--compare", [arguments] { arguments->content = Content::kComparison; },
      "One row a validation caption: before the training, after it, the real picture; with "
      "losses and each sample's distance to its nearest training picture");
  verb->footer(
      "Example:\n  mpirun -np 2 trireme sample runs/emoji --prompt 'a red fish' --count 4 "
      "--sampler dpmpp_2m --steps 20 --out fish.png");
  verb->callback([arguments, &action] {
    action = [arguments] {
      return run_reporting_as_rank([&](MpiEnvironment& mpi) { return run_sample(mpi, *arguments); });
    };
  });
}
}  // namespace trireme
