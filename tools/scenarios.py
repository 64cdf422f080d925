#!/usr/bin/env python3
"""What a preset buys over naive settings, on the demo's data: validation loss and overfit gap, over seeds.

    tools/scenarios.py --out runs/scenarios            # every scenario at full length: hours on two cores; docs/scenarios.md
    tools/scenarios.py --out /tmp/short --short        # a few steps each: that everything works, as the tests do
    tools/scenarios.py --out runs/scenarios --only subject --seeds 1 2

A scenario is a preset of configs/ and a *naive* variant that sees the same samples: what somebody would try first, every weight at one
constant rate, without what the preset is there for. Runs that are finished are not repeated. Each run's last checkpoint, and with
early stopping its best evaluation, is measured by `trireme eval` on the held-out samples and on the training samples, with the same
fixed noise: the gap is the first loss minus the second. Writes table.md, results.json and prints the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PLAIN = ["lr_schedule.name=constant", "lr_schedule.warmup_steps=0", "ema.decay=0.0", "early_stopping.patience=0"]
FULL_RATE = "optim.lr=4e-4"
FEW = "demo/subject_val.h5"  # Two pictures: enough for --short.

# Name: preset, overrides that make it naive, held-out files by what they measure.
SCENARIOS = {
    "subject": (
        "subject_demo", ["adapter.type=none", "data.prior=[]", "optim.lr=5e-4", "optim.lr_base_batch=0", *PLAIN],
        {"held-out subject": "demo/subject_val.h5", "class": "demo/prior_val.h5"}),
    "style-lora": (
        "style_lora_demo", ['adapter.targets=["to_q", "to_v"]', "adapter.alpha=1.0", "optim.lr=1e-4", *PLAIN,
                            "data.caption_dropout=0.0"],
        {"held-out drawings": "demo/symbola_val.h5"}),
    "style-full": (
        "style_full_demo", [FULL_RATE, *PLAIN, "data.caption_dropout=0.0"],
        {"held-out drawings": "demo/symbola_val.h5"}),
    "domain": (
        "domain_demo", [FULL_RATE, *PLAIN, "data.caption_dropout=0.0"],
        {"held-out drawings": "demo/symbola_val.h5"}),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the table")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--short", action="store_true", help="two steps on one rank, one seed, one naive run")
    parser.add_argument("--trireme", type=Path, default=REPOSITORY / "build" / "trireme")
    return parser.parse_args()


def trireme(args: argparse.Namespace, *command: object) -> str:
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run([args.trireme, *map(str, command)], cwd=REPOSITORY, env=environment, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"error: trireme {' '.join(map(str, command))} ended with code {done.returncode}:\n{done.stderr}")
    return done.stdout


def evaluations(run: Path) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "eval"]


def train(args: argparse.Namespace, preset: str, overrides: list[str], run: Path, seed: int) -> None:
    if (run / "finished").exists():
        return
    overrides = [f"run.seed={seed}", "sample.count=0", *overrides]
    if args.short:
        overrides += ["run.steps=2", "batch.global=4", "batch.micro=0", "eval.every_steps=2", "eval.timesteps=1",
                      "checkpoint.every_steps=0", f'data.validation=["{FEW}"]']
    sets = [word for key in overrides for word in ("--set", key)]
    start = ["train"] if args.short else ["launch", "-n", args.ranks]
    trireme(args, *start, REPOSITORY / "configs" / f"{preset}.toml", "--run-dir", run, *sets)
    (run / "finished").touch()


def loss_on(args: argparse.Namespace, run: Path, file: str) -> float:
    """With the average where the run has one: what it would be used with."""
    options = ["--set", f"eval.timesteps={1 if args.short else 8}", "--set", "data.validation_fraction=0.0"]
    file = FEW if args.short else file
    line = json.loads(trireme(args, "eval", run, "--json", "--set", f'data.validation=["{file}"]', *options))
    return line.get("val_loss_ema", line["val_loss"])


def measure(args: argparse.Namespace, run: Path, held_out: dict[str, str], training: str) -> dict:
    result = {name: loss_on(args, run, file) for name, file in held_out.items()}
    result["gap"] = result[next(iter(held_out))] - loss_on(args, run, training)
    losses = [line["val_loss_ema"] if "val_loss_ema" in line else line["val_loss"] for line in evaluations(run)]
    result["best"] = min(losses)
    result["steps"] = evaluations(run)[-1]["step"]
    return result


def text_of(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def table(results: dict) -> str:
    lines = ["| scenario | settings | measured on | loss | gap (held out − trained) | best on the way | steps |",
             "|---|---|---|---|---|---|---|"]
    for scenario, variants in results.items():
        for variant, seeds in variants.items():
            names = [name for name in seeds[0] if name not in ("gap", "best", "steps")]
            for i, name in enumerate(names):
                extra = [text_of([seed[key] for seed in seeds]) for key in ("gap", "best")] if i == 0 else ["", ""]
                steps = ", ".join(str(seed["steps"]) for seed in seeds) if i == 0 else ""
                loss = text_of([seed[name] for seed in seeds])
                lines.append(f"| {scenario} | {variant} | {name} | {loss} | {extra[0]} | {extra[1]} | {steps} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = arguments()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for scenario in args.only:
        preset, naive, held_out = SCENARIOS[scenario]
        training = "demo/subject_train.h5" if scenario == "subject" else "demo/symbola_train.h5"
        results[scenario] = {}
        variants = {"naive": naive, "preset": []}
        if args.short and scenario != "subject":  # One comparison shows that comparing works.
            del variants["naive"]
        for variant, overrides in variants.items():
            results[scenario][variant] = []
            for seed in args.seeds[:1] if args.short else args.seeds:
                run = args.out / f"{scenario}-{variant}-{seed}"
                train(args, preset, overrides, run, seed)
                results[scenario][variant].append(measure(args, run, held_out, training))
                print(f"{run.name}: {results[scenario][variant][-1]}", flush=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.out / "table.md").write_text(table(results))
    print(table(results), end="")


if __name__ == "__main__":
    main()
