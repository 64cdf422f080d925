#include "data/sampler.h"

#include <algorithm>
#include <ostream>
#include <utility>

#include "core/error.h"
#include "data/permutation.h"

namespace trireme {
namespace {
// Epochs from here on belong to the validation's random numbers (interface of PositionRandom:
// 2^24).
constexpr int64_t kMaxEpochs = 0xf00000;
}  // namespace

GlobalBatchSampler::GlobalBatchSampler(std::vector<ShapeClass> classes, Split split,
                                       Options options)
    : classes_(std::move(classes)),
      samples_(classes_, std::move(split), options.repeats),
      options_(std::move(options)) {
  if (samples_.num_draws() == 0) {
    throw UsageError(
        "no sample is left to train on. Check data.train and data.validation_fraction.");
  }
  const auto& phases = options_.global_batch.phases();
  starts_.push_back({.consumed = std::vector<__int128>(classes_.size(), 0), .ahead = 0});
  for (size_t i = 1; i < phases.size(); ++i) {
    starts_.push_back(start_after(i - 1, phases[i].first_step - phases[i - 1].first_step,
                                  phases[i].global_batch));
  }
}

// Within a phase of global batch B that began when class c had consumed o_c of its stream, batch k
// of class c is due at (o_c + (k + 1) B) / N_c. All batches due by time (S + t B) / N, where S is
// the sum of the o_c, are the first ones in order. Where no class is ahead of its time they are at
// most t and more than t - classes, since floors are taken of numbers whose sum is t; a class ahead
// counts 0 instead of a negative number, so t is chosen lower by as much. The rest of the way is a
// merge.
std::vector<GlobalBatchSampler::Next> GlobalBatchSampler::heap_after(size_t phase,
                                                                     int64_t num_steps) const {
  const auto is_later = [&](const Next& a, const Next& b) {
    const int64_t size = options_.global_batch.phases()[phase].global_batch;
    const __int128 due_a = (a.consumed + static_cast<__int128>(a.batch + 1) * size) * b.num_samples;
    const __int128 due_b = (b.consumed + static_cast<__int128>(b.batch + 1) * size) * a.num_samples;
    return due_a != due_b ? due_a > due_b : a.class_index > b.class_index;
  };
  const PhaseStart& start = starts_[phase];
  const auto& [first_step, samples_before, size] = options_.global_batch.phases()[phase];
  const int64_t total = samples_.num_draws();
  const int64_t certain = std::max<int64_t>(num_steps - start.ahead, 0);
  const __int128 time = samples_before + static_cast<__int128>(certain) * size;  // Times 1 / N.
  std::vector<Next> heap;
  int64_t taken = 0;
  for (size_t c = 0; c < classes_.size(); ++c) {
    const int64_t num_samples = samples_.num_draws(c);
    if (num_samples == 0) continue;
    const __int128 due = time * num_samples - start.consumed[c] * total;
    const auto batch =
        due <= 0 ? 0 : static_cast<int64_t>(due / (static_cast<__int128>(total) * size));
    heap.push_back({c, batch, start.consumed[c], num_samples});
    taken += batch;
  }
  std::ranges::make_heap(heap, is_later);
  for (; taken < num_steps; ++taken) {
    std::ranges::pop_heap(heap, is_later);
    ++heap.back().batch;
    std::ranges::push_heap(heap, is_later);
  }
  return heap;
}

GlobalBatchSampler::PhaseStart GlobalBatchSampler::start_after(size_t phase, int64_t num_steps,
                                                               int64_t next_batch) const {
  const auto& [first_step, samples_before, size] = options_.global_batch.phases()[phase];
  PhaseStart start{.consumed = std::vector<__int128>(classes_.size(), 0), .ahead = 0};
  for (const Next& next : heap_after(phase, num_steps)) {
    start.consumed[next.class_index] = next.consumed + static_cast<__int128>(next.batch) * size;
  }
  const int64_t total = samples_.num_draws();
  const __int128 time = samples_before + static_cast<__int128>(num_steps) * size;
  for (size_t c = 0; c < classes_.size(); ++c) {
    const __int128 due = time * samples_.num_draws(c) - start.consumed[c] * total;
    const __int128 batch = static_cast<__int128>(total) * next_batch;
    if (due < 0) start.ahead += static_cast<int64_t>((-due + batch - 1) / batch);
  }
  return start;
}

GlobalBatchSampler::BatchPlace GlobalBatchSampler::place(int64_t step) const {
  const size_t phase = options_.global_batch.phase_index(step);
  const auto& [first_step, samples_before, size] = options_.global_batch.phases()[phase];
  const Next next = heap_after(phase, step - first_step).front();
  return {next.class_index, next.consumed + static_cast<__int128>(next.batch) * size};
}

std::vector<SampleDraw> GlobalBatchSampler::draws(int64_t step, int64_t first,
                                                  int64_t count) const {
  check(first >= 0 && count >= 0 && first + count <= global_batch(step),
        "positions outside the global batch");
  const BatchPlace at = place(step);
  const int64_t num_samples = samples_.num_draws(at.class_index);
  const __int128 begin = at.first + first;
  if ((begin + count) / num_samples >= kMaxEpochs / samples_.max_times()) {
    throw UsageError("step " + std::to_string(step) + " would draw a sample more than " +
                     std::to_string(kMaxEpochs) +
                     " times, beyond the range of the random numbers. " +
                     "Lower run.steps or batch.global, or give more data.");
  }
  std::vector<SampleDraw> result;
  result.reserve(static_cast<size_t>(count));
  auto epoch = static_cast<int64_t>(begin / num_samples);
  auto index = static_cast<int64_t>(begin % num_samples);
  const auto stream = options_.first_class + static_cast<uint32_t>(at.class_index);
  Permutation permutation(num_samples, options_.seed, static_cast<uint64_t>(epoch), stream);
  while (static_cast<int64_t>(result.size()) < count) {
    const int64_t k = options_.order == Options::Order::kShuffled ? permutation(index) : index;
    result.push_back(samples_.draw(at.class_index, k, epoch));
    if (++index < num_samples) continue;
    index = 0;
    permutation = Permutation(num_samples, options_.seed, static_cast<uint64_t>(++epoch), stream);
  }
  return result;
}

const LatentShape& GlobalBatchSampler::shape(int64_t step) const {
  return classes_[place(step).class_index].shape;
}

int64_t GlobalBatchSampler::num_training() const noexcept { return samples_.num_draws(); }

void write_order(std::ostream& out, const GlobalBatchSampler& sampler, int64_t first_step,
                 int64_t last_step, int64_t num_shards) {
  constexpr int64_t kAtOnce = 1 << 16;
  for (int64_t step = first_step; step <= last_step; ++step) {
    const int64_t global_batch = sampler.global_batch(step);
    for (int64_t first = 0; first < global_batch; first += kAtOnce) {
      int64_t position = first;
      for (const SampleDraw& draw :
           sampler.draws(step, first, std::min(kAtOnce, global_batch - first))) {
        out << step << '\t' << position << '\t'
            << multiply_divide(position, num_shards, global_batch) << '\t' << draw.epoch << '\t'
            << draw.sample << '\n';
        ++position;
      }
    }
  }
}
}  // namespace trireme
