#!/usr/bin/env bash
# usage: tools/study_demo.sh
# The studies that docs/study_demo/ reports: the grid over batch and learning rate, what common random numbers
# save, and branches of two longer runs; their reports are copied beside the documentation. Takes three quarters of
# an hour of one core; can be interrupted and run again.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x build/trireme ] || { echo "error: build/trireme is not built. Run ./bootstrap build." >&2; exit 1; }

# A run has one thread, that of its core: models this small gain nothing from more, and two threads on a core that
# others use wait for each other.
trireme() { taskset -c "$(taskset -cp $$ | grep -oE '[0-9]+$')" build/trireme "$@"; }

for seed in 1 2; do  # What configs/study_fork.toml forks.
  trireme launch configs/study_base.toml -n 1 --run-dir "studies/trunk-$seed" --set run.seed="$seed" \
    --set run.steps=512 --set batch.global=8 --set batch.micro=4 --set optim.lr=1.4e-3 --set eval.every_steps=64 \
    --set checkpoint.every_steps=64 --set checkpoint.keep=8 --set sample.count=0
done
for name in demo common_numbers fork; do
  trireme study "configs/study_$name.toml"
  mkdir -p docs/study_demo
  for file in report.html results.json runs.csv; do
    cp "studies/${name/_/-}/$file" "docs/study_demo/${name}_$file"
  done
done
echo "the reports are in docs/study_demo/"
