#include "trainer/checkpoint/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/files.h"
#include "core/formatted.h"
#include "core/log.h"
#include "core/sha256.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/state_file.h"

namespace trireme {
namespace {
namespace fs = std::filesystem;
constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kStep = "step-";

std::string folder_name(int64_t step) {
  return formatted("step-%08lld", static_cast<long long>(step));
}

// The step in "step-00000500", -1 for any other name.
int64_t step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kStep)) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kStep.size(), end, step);
  return error == std::errc() && rest == end && name == folder_name(step) ? step : -1;
}

void write_synced(const fs::path& path, std::string_view text) {
  const File file = File::create(path);
  file.write_at(0, std::as_bytes(std::span(text)));
  file.sync();
}

// std::filesystem's own errors do not say what to do.
void guarded(const fs::path& checkpoints, const std::function<void()>& work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    throw UsageError(
        "the checkpoint folder " + checkpoints.string() +
        " cannot be written: " + error.code().message() + " (" + error.path1().string() +
        "). Free space or mend its permissions, then run again: the run goes on from its newest "
        "checkpoint.");
  }
}

// Steps of the checkpoint folders, newest first.
std::vector<int64_t> steps_in(const fs::path& checkpoints) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    const int64_t step = step_of(it->path());
    if (step >= 0 && it->is_directory(ignored)) steps.push_back(step);
  }
  std::ranges::sort(steps, std::greater<>());
  return steps;
}

void remove_leftovers(const fs::path& checkpoints) {
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    if (entry.path().filename().string().starts_with(kTemporary)) leftovers.push_back(entry.path());
  }
  for (const auto& path : leftovers) fs::remove_all(path);
}

void write_files(const fs::path& folder, const CheckpointContent& content) {
  fs::create_directories(folder / content.layout.folder);
  save_model_folder(folder / content.layout.folder, content.layout, content.model);
  if (!content.ema.empty()) {
    fs::create_directories(folder / "ema");
    save_model_folder(folder / "ema", content.layout, content.ema);
  }
  write_safetensors(folder / "optimizer.safetensors", content.optimizer);
  for (const auto& [name, text] : content.extra_files) {
    check(is_plain_path(name), "an extra file of a checkpoint lies inside it");
    fs::create_directories((folder / name).parent_path());
    write_synced(folder / name, text);
  }
  write_synced(folder / "config.toml", content.state.config_toml);
  write_synced(folder / "state.json", state_json(content.state));
  write_synced(folder / Manifest::kFileName,
               manifest_json(describe_folder(folder, content.state.step)));
  sync_folder(folder);
}

// `fresh` takes the place of `final_place`; what was there before ends up under `fresh`'s name.
void move_into_place(const fs::path& fresh, const fs::path& final_place) {
  if (!fs::exists(final_place)) {
    fs::rename(fresh, final_place);
    return;
  }
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, final_place.c_str(), RENAME_EXCHANGE) == 0)
    return;
  fs::path old = fresh;  // A file system without exchange: for a moment the step has no checkpoint.
  old += "-old";
  fs::rename(final_place, old);
  fs::rename(fresh, final_place);
}

void point(const char* link_name, const fs::path& checkpoints, const std::string& name) {
  const fs::path link = checkpoints / (std::string(kTemporary) + link_name);
  fs::remove(link);
  fs::create_directory_symlink(name, link);
  fs::rename(link, checkpoints / link_name);
}

// The best one may be gone: deleted by hand, or never written again after a resume.
void point_at_best(const fs::path& checkpoints, int64_t best_step) {
  if (best_step > 0 && fs::exists(checkpoints / folder_name(best_step))) {
    point("best", checkpoints, folder_name(best_step));
  } else {
    fs::remove(checkpoints / "best");
  }
}

// Newer folders than `written` were passed over as unusable when the run resumed; they are left for
// the user to see, and do not count.
void prune(const fs::path& checkpoints, int64_t written, int64_t best_step, int64_t keep) {
  if (keep <= 0) return;
  int64_t kept = 0;
  for (const int64_t step : steps_in(checkpoints)) {
    if (step > written || ++kept <= keep || step == best_step) continue;
    const fs::path doomed =
        checkpoints / (std::string(kTemporary) + "removed-" + folder_name(step));
    fs::rename(checkpoints / folder_name(step),
               doomed);  // So that half a checkpoint never bears its name.
    fs::remove_all(doomed);
  }
}

void check_file(const fs::path& folder, const std::string& name, const Manifest::Entry& entry,
                Verify verify) {
  const fs::path path = folder / name;
  const std::string cure = ". The checkpoint is damaged; use another one of the run.";
  std::error_code error;
  const bool regular = fs::is_regular_file(path, error);
  if (!regular)
    throw InputError("the checkpoint " + folder.string() + " lacks its file " + name + cure);
  const uint64_t size_bytes = fs::file_size(path, error);
  if (error || size_bytes != entry.size_bytes) {
    throw InputError(path.string() + " has " +
                     (error ? "no readable size" : std::to_string(size_bytes) + " bytes") +
                     ", but the manifest says " + std::to_string(entry.size_bytes) + cure);
  }
  if (verify == Verify::kChecksums && sha256_of_file(path) != entry.sha256) {
    throw InputError(path.string() + " has another SHA-256 than the manifest says" + cure);
  }
}
}  // namespace

fs::path write_checkpoint(const fs::path& checkpoints, const CheckpointContent& content,
                          int64_t keep) {
  const int64_t step = content.state.step;
  check(step >= 0 && is_plain_path(content.layout.folder), "a checkpoint's step and model folder");
  const std::string name = folder_name(step);
  const fs::path beside = checkpoints / (std::string(kTemporary) + name);
  guarded(checkpoints, [&] {
    fs::create_directories(checkpoints);
    remove_leftovers(checkpoints);
    try {
      write_files(beside, content);
    } catch (...) {
      std::error_code ignored;
      fs::remove_all(beside, ignored);  // Its space is what the next attempt may lack.
      throw;
    }
    move_into_place(beside, checkpoints / name);
    sync_folder(checkpoints);
    point("latest", checkpoints, name);
    point_at_best(checkpoints, content.state.best_step);
    remove_leftovers(checkpoints);
    prune(checkpoints, step, content.state.best_step, keep);
    sync_folder(checkpoints);
  });
  return checkpoints / name;
}

CheckpointState open_checkpoint(const fs::path& folder, Verify verify) {
  const Manifest manifest = read_manifest(folder);
  for (const char* needed : {"state.json", "config.toml", "optimizer.safetensors"}) {
    if (!manifest.files.contains(needed)) {
      throw InputError((folder / Manifest::kFileName).string() + " does not list " + needed +
                       ". The checkpoint is damaged; use another one of the run.");
    }
  }
  for (const auto& [name, entry] : manifest.files) check_file(folder, name, entry, verify);
  CheckpointState state = read_state(folder);
  const int64_t named = step_of(folder);
  if (state.step != manifest.step || (named >= 0 && named != state.step)) {
    throw InputError(
        "the checkpoint " + folder.string() + " is of step " + std::to_string(state.step) +
        " by its state, of step " + std::to_string(manifest.step) +
        " by its manifest, which with its folder's name must agree. Use another one of the run.");
  }
  return state;
}

std::optional<fs::path> newest_checkpoint(const fs::path& checkpoints) {
  for (const int64_t step : steps_in(checkpoints)) {
    fs::path folder = checkpoints / folder_name(step);
    try {
      (void)open_checkpoint(folder, Verify::kChecksums);
      return folder;
    } catch (const InputError& error) {
      log::warn("passing over " + folder.string() + ": " + error.what());
    }
  }
  return std::nullopt;
}
}  // namespace trireme
