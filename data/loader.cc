#include "data/loader.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "core/error.h"

namespace trireme {
namespace {
using Clock = std::chrono::steady_clock;

int64_t rank_share(const GlobalBatchSampler& sampler, const BatchLoader::Options& options,
                   int64_t step) {
  const int64_t global_batch = sampler.global_batch(step);
  const int64_t share = global_batch / options.num_ranks;
  check(share * options.num_ranks == global_batch && share % options.micro == 0,
        "micro does not divide the rank's share");
  return share;
}
}  // namespace

// A bounded queue between one producer, the thread, and one consumer, next().
struct BatchLoader::Impl {
  Impl(const LatentDataset& the_dataset, const GlobalBatchSampler& the_sampler, Options the_options)
      : dataset(the_dataset),
        sampler(the_sampler),
        options(std::move(the_options)),
        thread([this](const std::stop_token& stop) { run(stop); }) {}

  void run(const std::stop_token& stop) noexcept {
    try {
      for (int64_t step = options.first_step; step <= options.last_step; ++step) {
        const int64_t share = rank_share(sampler, options, step);
        for (int64_t done = 0; done < share; done += options.micro) {
          const int64_t first = options.rank * share + done;
          if (stop.stop_requested()) return;
          const auto begin = Clock::now();
          LatentBatch batch = make_training_batch(dataset, options.draw, step, first,
                                                  sampler.draws(step, first, options.micro));
          options.trace.record("batch of step " + std::to_string(step), begin, Clock::now());
          if (!offer(std::move(batch), stop)) return;
          if (options.prior && !offer(prior_batch(step, first), stop)) return;
        }
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  }

  // Waits for room; false where the loader stops first.
  bool offer(LatentBatch batch, const std::stop_token& stop) {
    std::unique_lock lock(mutex);
    const auto has_room = [&] { return ready.size() < static_cast<size_t>(options.num_ahead); };
    if (!changed.wait(lock, stop, has_room)) return false;
    ready.push_back(std::move(batch));
    changed.notify_all();
    return true;
  }

  [[nodiscard]] LatentBatch prior_batch(int64_t step, int64_t first) const {
    const PriorSource& prior = *options.prior;
    LatentBatch batch =
        make_training_batch(*prior.dataset, prior.draw, step, prior.first_position + first,
                            prior.sampler->draws(step, first, options.micro));
    batch.loss_weight = prior.loss_weight;
    return batch;
  }

  const LatentDataset& dataset;
  const GlobalBatchSampler& sampler;
  const Options options;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<LatentBatch> ready;
  std::exception_ptr failure;
  bool ended = false;
  std::atomic<double> wait_seconds = 0.0;
  std::jthread thread;  // Last: it uses what stands above, and is joined first.
};

BatchLoader::BatchLoader(const LatentDataset& dataset, const GlobalBatchSampler& sampler,
                         Options options) {
  check(options.micro >= 1 && options.num_ranks >= 1, "loader options out of range");
  check(options.num_ahead >= 1 && options.first_step >= 1, "loader options out of range");
  (void)rank_share(sampler, options, options.first_step);
  impl_ = std::make_unique<Impl>(dataset, sampler, std::move(options));
}

BatchLoader::~BatchLoader() = default;

LatentBatch BatchLoader::next() {
  const auto start = Clock::now();
  std::unique_lock lock(impl_->mutex);
  impl_->changed.wait(lock, [&] { return !impl_->ready.empty() || impl_->ended; });
  impl_->wait_seconds += std::chrono::duration<double>(Clock::now() - start).count();
  // Batches made before a failure come first, so that it appears at the same step every time.
  if (impl_->ready.empty()) {
    if (impl_->failure) std::rethrow_exception(impl_->failure);
    check(false, "next() after the last step of the loader");
  }
  LatentBatch batch = std::move(impl_->ready.front());
  impl_->ready.pop_front();
  impl_->changed.notify_all();
  return batch;
}

double BatchLoader::wait_seconds() const noexcept { return impl_->wait_seconds; }
}  // namespace trireme
