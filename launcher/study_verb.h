#pragma once
#include <functional>

namespace CLI {
class App;
}

namespace trireme {

// Adds to the verb `study` what runs a STUDY (as in verbs.h); `study fit` is a verb of its own.
void add_study_options(CLI::App& study, std::function<int()>& action);
}  // namespace trireme
