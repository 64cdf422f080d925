#pragma once
#include <string>

#include "trainer/config.h"

namespace trireme {

// Runs the forward pass inside it in bf16 by autocast over float32 parameters; nothing in fp32.
// Nests.
class AutocastScope {
 public:
  AutocastScope(Precision precision, const std::string& device);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  bool is_active_ = false;
  bool was_enabled_ = false;
  bool is_cuda_ = false;
};
}  // namespace trireme
