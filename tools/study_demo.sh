#!/usr/bin/env bash
# usage: tools/study_demo.sh [short]
# The study that docs/ reports: the grid over batch and learning rate, what common random numbers save, and the
# reports copied beside the documentation. Takes about an hour on two quiet cores; can be interrupted and run
# again. `short` runs it in a tenth of the samples with two seeds, to try it out, and copies nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
trireme=build/trireme
[ -x "$trireme" ] || { echo "error: $trireme is not built. Run ./bootstrap build." >&2; exit 1; }

# Threads that spin while they wait would slow down ranks that share cores.
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0

if [ "${1:-}" = short ]; then
  for study in study_demo study_common_numbers; do
    mkdir -p studies
    sed -e 's/^name = "\(.*\)"/name = "\1-short"/' -e 's/^budget_samples = .*/budget_samples = 640/' \
      -e 's/^eval_samples = .*/eval_samples = 128/' -e 's/^lr_extend = .*/lr_extend = 0/' \
      -e 's/^batch = .*/batch = [16, 32, 64]/' -e 's/^lr_factor = .*/lr_factor = [1.0, 4.0]/' \
      -e 's/^seed = .*/seed = [1, 2, 3]/' "configs/$study.toml" >"studies/$study-short.toml"
    "$trireme" study "studies/$study-short.toml"
  done
  exit
fi

for name in demo common_numbers; do
  "$trireme" study "configs/study_$name.toml"
done
mkdir -p docs/study_demo
for file in report.html results.json runs.csv; do
  cp "studies/demo/$file" "docs/study_demo/$file"
  cp "studies/common-numbers/$file" "docs/study_demo/common_numbers_$file"
done
echo "the reports are in docs/study_demo/"
