// LibTorch is built with NDEBUG; without it here inputs() would look at a flag that nobody sets. So
// this file does without the precompiled header.
#ifndef NDEBUG
#define NDEBUG
#endif
#include "trainer/reduce/parameter_gather.h"

#include <chrono>
#include <utility>

#include <ATen/record_function.h>

#include "core/error.h"
#include "trainer/reduce/gradient_reducer.h"

namespace trireme {
namespace {
// LibTorch's operator hooks are plain functions, so what they act for is known by thread.
thread_local ParameterGather* watching = nullptr;

void look_at(const c10::IValue& input) {
  if (watching == nullptr) return;
  if (input.isTensor()) {
    watching->wait_for(input.toTensor());
  } else if (input.isTensorList()) {
    for (const at::Tensor& tensor : input.toTensorVector()) {
      if (watching != nullptr) watching->wait_for(tensor);
    }
  }
}

std::unique_ptr<at::ObserverContext> before_operator(const at::RecordFunction& function) {
  for (const auto& input : function.inputs()) look_at(input);
  return nullptr;
}
}  // namespace

ParameterGather::ParameterGather(Communicator& comm, GradientBuckets& buckets)
    : comm_(comm), buckets_(buckets), works_(buckets.flat().size()) {}

ParameterGather::~ParameterGather() { stop_watching(); }

void ParameterGather::start() {
  check(num_in_flight_ == 0 && watching == nullptr, "one gathering of parameters at a time");
  if (comm_.world_size() == 1) return;
  // Buckets are in the order of backward: forward takes the last one first.
  for (size_t b = works_.size(); b-- > 0;) {
    const at::Tensor& params = buckets_.flat()[b].params;
    const int64_t slice = params.numel() / comm_.world_size();
    works_[b] =
        comm_.all_gather(view_of(params.narrow(0, slice * comm_.rank(), slice)), view_of(params));
    ++num_in_flight_;
  }
  watching = this;
  watch_ = at::addThreadLocalCallback(at::RecordFunctionCallback(before_operator)
                                          .needsInputs(true)
                                          .scopes({at::RecordScope::FUNCTION}));
}

void ParameterGather::stop_watching() noexcept {
  if (watch_ == 0) return;
  at::removeCallback(std::exchange(watch_, 0));
  watching = nullptr;
}

void ParameterGather::finish(size_t bucket) {
  const auto begin = std::chrono::steady_clock::now();
  works_[bucket]->wait();
  works_[bucket].reset();
  --num_in_flight_;
  exposed_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void ParameterGather::wait_for(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage()) return;
  const auto* storage = tensor.storage().unsafeGetStorageImpl();
  for (size_t b = 0; b < works_.size(); ++b) {
    if (!works_[b] || buckets_.flat()[b].params.storage().unsafeGetStorageImpl() != storage) {
      continue;
    }
    finish(b);
  }
  // The hook itself is taken away in wait(), outside of it.
  if (num_in_flight_ == 0) watching = nullptr;
}

void ParameterGather::wait() {
  for (size_t b = works_.size(); b-- > 0;) {
    if (works_[b]) finish(b);
  }
  stop_watching();
}

double ParameterGather::take_exposed_seconds() noexcept {
  return std::exchange(exposed_seconds_, 0.0);
}
}  // namespace trireme
