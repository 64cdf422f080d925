#pragma once
#include <cstdint>
#include <vector>

#include "dist/mpi_environment.h"
#include "trainer/session.h"

namespace trireme {

struct ValidationResult {
  double loss = 0.0;
  std::vector<double> band_losses;  // One a point of eval.timesteps, from little to much noise.
  int64_t num_samples = 0;
};

// The validation loss with fixed noise (docs/randomness.md), by all ranks together: batches of
// fixed composition are dealt out, their losses summed in a fixed order, so the result does not
// depend on the number of ranks. Collective. REQUIRES: session.num_validation() > 0.
[[nodiscard]] ValidationResult evaluate_validation(MpiEnvironment& mpi, Session& session);

// The same for as many training samples as validate (or all, where those are fewer), spread evenly:
// the j-th with timesteps and noise of the j-th validation sample, so that the difference of the
// two losses is not one of noise. Collective. REQUIRES: session.num_validation() > 0.
[[nodiscard]] ValidationResult evaluate_training(MpiEnvironment& mpi, Session& session);
}  // namespace trireme
