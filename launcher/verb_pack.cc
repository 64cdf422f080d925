#include <cstdint>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/log.h"
#include "dist/mpi_environment.h"
#include "launcher/command_line.h"
#include "launcher/verbs.h"
#include "trainer/encode.h"
#include "trainer/session.h"

namespace trireme {
namespace {
int run_pack(PackOptions options) {
  return run_reporting_as_rank([&](MpiEnvironment& mpi) {
    log::configure(mpi.rank(), mpi.world_size());
    options.device = choose_device(mpi);
    const PackSummary summary = pack(mpi, options);
    if (mpi.rank() == 0) {
      log::info("wrote " + options.out.string() + ": " + std::to_string(summary.num_samples) +
                " samples, " + std::to_string(summary.num_captions) + " distinct captions, " +
                std::to_string(summary.num_skipped) + " pictures skipped");
    }
    return static_cast<int>(ExitCode::kDone);
  });
}
}  // namespace

void add_pack_verb(CLI::App& app, std::function<int()>& action) {
  struct Arguments {
    PackOptions options;
    std::string model, images, captions, out;
    std::string kind = "moments";
    std::string on_error = "fail";
  };
  auto arguments = std::make_shared<Arguments>();
  auto* verb =
      app.add_subcommand("pack", "Encode pictures and captions to one HDF5 file of latents");
  verb->add_option("--model", arguments->model,
                   "A diffusers folder with vae, text_encoder, tokenizer")
      ->required();
  verb->add_option("--images", arguments->images,
                   "Folder of PNG and JPEG files; captions in NAME.txt beside NAME.png")
      ->required();
  verb->add_option("--captions", arguments->captions,
                   "Captions instead from FILE.jsonl: lines with file_name and text");
  verb->add_option("--out", arguments->out, "The file to write, FILE.h5")->required();
  verb->add_option("--resolution", arguments->options.resolution,
                   "Pixels a side: shorter side resized to it, centre cropped")
      ->required();
  verb->add_option("--kind", arguments->kind,
                   "moments (each draw samples the posterior) or sample (one fixed sample)")
      ->check(CLI::IsMember({"moments", "sample"}))
      ->capture_default_str();
  verb->add_option("--on-error", arguments->on_error,
                   "What to do with an unreadable picture: fail or skip")
      ->check(CLI::IsMember({"fail", "skip"}))
      ->capture_default_str();
  verb->add_option("--batch", arguments->options.batch,
                   "Pictures encoded together; default: as many as make up 512x512 pixels")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
  verb->add_flag_callback(
      "--recursive", [arguments] { arguments->options.subfolders = Subfolders::kSearched; },
      "Look for pictures in the folder's folders too; ids are relative paths");
  verb->footer(
      "Example:\n  mpirun -np 4 trireme pack --model sd15 --images photos --out photos.h5 "
      "--resolution 512");
  verb->callback([arguments, &action] {
    PackOptions options = arguments->options;
    options.model = arguments->model;
    options.images = arguments->images;
    options.out = arguments->out;
    if (!arguments->captions.empty()) options.captions = arguments->captions;
    options.kind = arguments->kind == "sample" ? LatentKind::kSample : LatentKind::kMoments;
    options.on_unreadable =
        arguments->on_error == "skip" ? OnUnreadable::kSkip : OnUnreadable::kFail;
    action = [options] { return run_pack(options); };
  });
}
}  // namespace trireme
