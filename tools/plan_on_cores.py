#!/usr/bin/env python3
"""What `trireme plan` predicts for ranks on this machine's cores beside what they do.

usage: tools/plan_on_cores.py [rounds]

Ranks have one thread each. Calibrated on one rank at two batches and on `bench all_reduce` of two ranks; predicted and
measured are 1, 2 and 4 ranks at a share of the batch that one rank was not calibrated at (weak), and at one global
batch (strong). Rounds (3) alternate, so that what else the machine does hits all alike; figures are medians. Measure on
a quiet machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRIREME = Path(os.environ.get("TRIREME", "build/trireme")).resolve()
CONFIG = "configs/demo.toml"
WARM, STEPS = 2, 6  # The first steps are not counted.
SHARE = 8
CALIBRATION = [(1, 4), (1, 16)]  # Ranks, global batch.
WEAK = [(ranks, SHARE * ranks) for ranks in (1, 2, 4)]
STRONG = [(ranks, 2 * SHARE) for ranks in (2, 4)]
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")


MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


def trireme(*words, ranks=0):
    command = [*([*MPIRUN, "-np", str(ranks)] if ranks else []), str(TRIREME), *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}\n{done.stderr}")
    return done.stdout


def settings(batch):
    keys = [f"run.steps={WARM + STEPS}", f"batch.global={batch}", "freeze.patterns=[]", "eval.every_steps=0",
            "checkpoint.every_steps=1000", "sample.count=0", "ema.decay=0.0", "lr_schedule.warmup_steps=0"]
    return [word for key in keys for word in ("--set", key)]


def measure(ranks, batch):
    """Seconds of each counted step."""
    with tempfile.TemporaryDirectory() as folder:
        trireme("train", CONFIG, "--run-dir", folder, *settings(batch), ranks=ranks)
        lines = map(json.loads, Path(folder, "metrics.jsonl").read_text().splitlines())
        return [line["step_seconds"] for line in lines if line["kind"] == "train"][WARM:]


def predict(ranks, batch, calibration):
    words = [word for file in calibration for word in ("--calibrate", file)]
    plan = json.loads(trireme("plan", CONFIG, *settings(batch), "--gpu-type", "cpu", "--ranks", ranks, "--json", *words))
    return plan["rows"][0]["images_per_second"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = {case: [] for case in dict.fromkeys(CALIBRATION + WEAK + STRONG)}
    with tempfile.TemporaryDirectory() as folder:
        reductions, steps = Path(folder, "bench.json"), Path(folder, "steps.csv")
        trireme("bench", "all_reduce", "-n", 2, "--rounds", 5, "--json", reductions)
        for _ in range(rounds):
            for case in seconds:
                seconds[case] += measure(*case)
        measured = {(ranks, batch): batch / statistics.median(times) for (ranks, batch), times in seconds.items()}
        steps.write_text("ranks,samples_per_rank,images_per_second\n" + "".join(
            f"{ranks},{batch / ranks},{measured[ranks, batch]}\n" for ranks, batch in CALIBRATION))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {rounds} rounds of {STEPS} steps, images/s")
        print(f"{'':6} {'ranks':>5} {'batch':>5} {'predicted':>9} {'measured':>8} {'error':>8}")
        for kind, cases in (("weak", WEAK), ("strong", STRONG)):
            for ranks, batch in cases:
                predicted = predict(ranks, batch, [steps, reductions])
                error = predicted / measured[ranks, batch] - 1
                print(f"{kind:6} {ranks:5} {batch:5} {predicted:9.2f} {measured[ranks, batch]:8.2f} {error:+8.1%}")


if __name__ == "__main__":
    main()
