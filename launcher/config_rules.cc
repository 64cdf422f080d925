#include "launcher/config_rules.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <regex>
#include <tuple>

#include "core/error.h"
#include "trainer/freeze.h"

namespace trireme {
namespace {
class Rules {
 public:
  Rules(const Config& config, const std::string& file, const PlaceOfKey& place)
      : config_(config), file_(file), place_(place) {}

  // `what` completes "exactly one of A and B must be set".
  void exactly_one(std::string_view first, bool has_first, std::string_view second,
                   bool has_second) const {
    if (has_first != has_second) return;
    const std::string pair = std::string(first) + " and " + std::string(second);
    if (has_first)
      fail(second, "both " + pair + " are set; exactly one must be. Remove one of them");
    fail({}, "neither " + std::string(first) + " nor " + std::string(second) +
                 " is set; exactly one must be. Add one of them");
  }

  [[noreturn]] void fail(std::string_view key, const std::string& text) const {
    const std::string place = key.empty() ? std::string() : place_(key);
    throw UsageError((place.empty() ? file_ : place) + ": " + text + ".");
  }

  void check_pairs() const {
    const auto& c = config_;
    exactly_one("run.steps", c.run.steps > 0, "run.epochs", c.run.epochs > 0);
    exactly_one("batch.global", c.batch.global > 0, "batch.per_rank", c.batch.per_rank > 0);
    exactly_one("model.weights", !c.model.weights.empty(), "model.config", !c.model.config.empty());
    if (!c.data.validation.empty() && c.data.validation_fraction > 0) {
      fail("data.validation_fraction",
           "both data.validation and data.validation_fraction are set; at most one may be. Remove "
           "one of them");
    }
  }

  void check_lists() const {
    const auto& c = config_;
    if (c.data.train.empty()) {
      fail("data.train",
           "data.train names no file. Set it to a list of HDF5 files, [\"train.h5\"]");
    }
    for (const auto& [key, list] :
         {std::pair{"data.train", &c.data.train}, std::pair{"data.validation", &c.data.validation},
          std::pair{"data.prior", &c.data.prior}, std::pair{"adapter.targets", &c.adapter.targets},
          std::pair{"freeze.patterns", &c.freeze.patterns}}) {
      for (const auto& item : *list) {
        if (item.empty()) fail(key, std::string(key) + " holds an empty string. Remove it");
      }
    }
    if (c.run.name.empty()) fail("run.name", "run.name is empty. Give the run a name");
  }

  void check_patterns() const {
    constexpr size_t kMaxLength = 1000;
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto& pattern : config_.freeze.patterns)
      all.emplace_back("freeze.patterns", pattern);
    for (const auto& [pattern, factor] : config_.optim.lr_multipliers)
      all.emplace_back("optim.lr_multipliers", pattern);
    for (const auto& [key, pattern] : all) {
      if (pattern.size() > kMaxLength) {
        fail(key, "a pattern of " + key + " has " + std::to_string(pattern.size()) +
                      " characters; at most " + std::to_string(kMaxLength) + " are allowed");
      }
      try {
        (void)std::regex(pattern);
      } catch (const std::regex_error& error) {
        fail(key, key + ": '" + pattern + "' is not a regular expression (" + error.what() +
                      "). A literal dot is written \"\\\\.\"");
      }
    }
  }

  void check_groups() const {
    const auto& known = freeze_groups();
    for (const auto& group : config_.freeze.groups) {
      if (std::ranges::find(known, group) != known.end()) continue;
      std::string names;
      for (const auto& name : known) names += (names.empty() ? "" : ", ") + name;
      fail("freeze.groups",
           "freeze.groups holds \"" + group + "\", but each must be one of " + names);
    }
  }

  void check_combinations() const {
    const auto& c = config_;
    if (c.adapter.type != "none" && c.adapter.targets.empty()) {
      fail("adapter.targets",
           "adapter.targets is empty: the adapter has no layer to add to. Name some, such as "
           "[\"to_q\", \"to_v\"]");
    }
    if (c.parallel.shards > 0 && !std::has_single_bit(static_cast<uint64_t>(c.parallel.shards))) {
      fail("parallel.shards",
           "parallel.shards is " + std::to_string(c.parallel.shards) +
               ", but must be 0 or a power of two, such as " +
               std::to_string(std::bit_floor(static_cast<uint64_t>(c.parallel.shards))));
    }
    if (c.optim.name == OptimizerName::kSgd && c.optim.nesterov && c.optim.momentum <= 0) {
      fail("optim.nesterov",
           "optim.nesterov needs optim.momentum above 0. Set optim.momentum, or nesterov = false");
    }
    if (c.early_stopping.patience > 0) check_early_stopping();
  }

  void check_scores() const {
    const auto& scores = config_.scores;
    for (const auto& name : scores.metrics) {
      if (name != "fid" && name != "kid" && name != "clip_score" && name != "latent_frechet") {
        fail("scores.metrics", "scores.metrics holds '" + name +
                                   "', which is none of fid, kid, clip_score, latent_frechet");
      }
      if (std::ranges::count(scores.metrics, name) > 1) {
        fail("scores.metrics", "scores.metrics holds '" + name + "' twice. Remove one of them");
      }
      if ((name == "fid" || name == "kid") && scores.inception.empty()) {
        fail(
            "scores.metrics",
            "scores.metrics has \"" + name +
                "\", which needs Inception-v3's weights. Set scores.inception to their safetensors "
                "file (tools/convert_inception.py makes it), or use \"latent_frechet\"");
      }
      if (name == "clip_score" && scores.clip.empty()) {
        fail("scores.metrics",
             "scores.metrics has \"clip_score\", which needs CLIP's encoders. Set scores.clip to a "
             "folder that holds them");
      }
    }
  }

  void check_batch_growth() const {
    const auto& [at, to] = std::tie(config_.batch.grow_at, config_.batch.grow_to);
    if (at.empty() && to.empty()) return;
    if (at.size() != to.size()) {
      fail("batch.grow_to", "batch.grow_at has " + std::to_string(at.size()) +
                                " numbers and batch.grow_to " + std::to_string(to.size()) +
                                "; each number of samples needs its global batch");
    }
    if (config_.batch.global == 0) {
      fail("batch.grow_to", "batch.grow_to needs batch.global, the global batch to begin with");
    }
    for (size_t i = 0; i < at.size(); ++i) {
      if (at[i] <= (i == 0 ? 0 : at[i - 1])) {
        fail("batch.grow_at", "the numbers of batch.grow_at must ascend");
      }
      if (to[i] <= (i == 0 ? config_.batch.global : to[i - 1])) {
        fail("batch.grow_to", "the numbers of batch.grow_to must ascend, beyond batch.global");
      }
    }
    if (config_.optim.lr_base_batch > 0 && config_.optim.lr_scaling == LrScaling::kSqrtAdam) {
      fail("optim.lr_scaling",
           "optim.lr_scaling = \"sqrt_adam\" changes the betas with the batch, which cannot change "
           "within a run: with batch.grow_to use \"sqrt\"");
    }
  }

  void check_data() const {
    const auto& data = config_.data;
    if (!data.repeats.empty() && data.repeats.size() != data.train.size()) {
      fail("data.repeats", "data.repeats has " + std::to_string(data.repeats.size()) +
                               " numbers for the " + std::to_string(data.train.size()) +
                               " files of data.train; give one for each, or none");
    }
  }

  void check_schedules() const {
    const auto& schedule = config_.lr_schedule;
    const int given = (schedule.warmup_steps > 0 ? 1 : 0) + (schedule.warmup_samples > 0 ? 1 : 0) +
                      (schedule.warmup_fraction > 0 ? 1 : 0);
    if (given > 1) {
      fail(schedule.warmup_fraction > 0 ? "lr_schedule.warmup_fraction"
                                        : "lr_schedule.warmup_samples",
           "the warm-up is given more than once, by lr_schedule.warmup_steps, warmup_samples or "
           "warmup_fraction. Keep one of them, and set the others to 0");
    }
    const auto& noise = config_.noise;
    const auto num_betas = static_cast<int64_t>(noise.trained_betas.size());
    if (num_betas > 0 && noise.timesteps != num_betas) {
      fail("noise.trained_betas", "noise.trained_betas has " + std::to_string(num_betas) +
                                      " numbers, but noise.timesteps is " +
                                      std::to_string(noise.timesteps) +
                                      ". Remove noise.timesteps, or correct the list");
    }
    const auto& range = config_.objective.timestep_range;
    if (range[0] >= range[1]) {
      fail("objective.timestep_range",
           "the first number of objective.timestep_range must be below the second");
    }
  }

  void check_early_stopping() const {
    const auto& c = config_;
    if (c.eval.every_steps == 0) {
      fail("early_stopping.patience",
           "early_stopping.patience is set, but eval.every_steps = 0 turns evaluation off. Set "
           "eval.every_steps");
    }
    const auto& metric = c.early_stopping.metric;
    const auto is_one_of = [&](std::initializer_list<const char*> beginnings) {
      return std::ranges::any_of(beginnings,
                                 [&](const char* word) { return metric.starts_with(word); });
    };
    const bool watches_loss = is_one_of({"val_loss", "train_loss_fixed", "overfit_gap"});
    const bool watches_score =
        !watches_loss && !is_one_of({"nearest_train_distance", "memorised_fraction"});
    if (watches_score && std::ranges::count(c.scores.metrics, metric) == 0) {
      fail("early_stopping.metric",
           "early_stopping.metric = \"" + metric +
               "\" is not among scores.metrics, and no loss. Add it there, or choose val_loss, "
               "val_loss_ema, val_loss_band_K, overfit_gap or memorised_fraction");
    }
    if (watches_loss && c.data.validation.empty() && c.data.validation_fraction == 0) {
      fail(
          "early_stopping.patience",
          "early_stopping.patience is set, but there is no validation data. Set data.validation or "
          "data.validation_fraction");
    }
    if (metric.find("_ema") != std::string::npos && c.ema.decay == 0) {
      fail("early_stopping.metric", "early_stopping.metric = \"" + metric +
                                        "\" needs an average of the weights. Set ema.decay");
    }
  }

 private:
  const Config& config_;
  const std::string& file_;
  const PlaceOfKey& place_;
};
}  // namespace

void check_config_rules(const Config& config, const std::string& file, const PlaceOfKey& place) {
  const Rules rules(config, file, place);
  rules.check_pairs();
  rules.check_lists();
  rules.check_patterns();
  rules.check_groups();
  rules.check_combinations();
  rules.check_scores();
  rules.check_batch_growth();
  rules.check_data();
  rules.check_schedules();
}
}  // namespace trireme
