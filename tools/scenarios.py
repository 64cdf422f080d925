#!/usr/bin/env python3
"""What a preset buys over naive settings, on the demo's data: validation loss and overfit gap, from the same samples and seeds.

    tools/scenarios.py --out runs/scenarios            # the whole, some 35 minutes of one core: docs/scenarios.md
    tools/scenarios.py --out /tmp/short --short        # a few steps each: that everything works, as the tests do
    tools/scenarios.py --out runs/scenarios --only subject --seeds 1 2 3

A *naive* run is what somebody would try first: the preset's data, batch and number of steps without what the preset is there for, at
one constant rate. Styles and the domain, with a thousand pictures, are measured over four epochs. Every number is of held-out samples and of as many training samples with the same fixed noise, as runs evaluate
them; a run with an average is judged by it. A preset is judged at its best evaluation too, which is the checkpoint that it keeps.
Runs that are finished are not repeated. Writes table.md and results.json after every seed and prints the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PLAIN = ["lr_schedule.name=constant", "lr_schedule.warmup_steps=0", "ema.decay=0.0", "early_stopping.patience=0",
         "checkpoint.best=off", "data.caption_dropout=0.0"]
STYLE = ["run.steps=64", "eval.every_steps=32", "eval.timesteps=2"]  # Four epochs of the presets' ten.

# Run: preset, what is changed.
RUNS = {
    "subject": ("subject_demo", []),
    "subject-naive": ("subject_demo", ["adapter.type=none", "data.prior=[]", "optim.lr=5e-4", "optim.lr_base_batch=0", *PLAIN]),
    "style-full": ("style_full_demo", STYLE),
    "full-naive": ("style_full_demo", [*PLAIN, *STYLE]),
    "style-lora": ("style_lora_demo", STYLE),
    "style-lora-naive": ("style_lora_demo", [  # The program's defaults for an adapter.
        'adapter.targets=["to_q", "to_k", "to_v", "to_out.0"]', "optim.lr=1e-4", *PLAIN, *STYLE]),
    "domain": ("domain_demo", STYLE),
}
NAIVE = {"subject": "subject-naive", "style-lora": "style-lora-naive", "style-full": "full-naive", "domain": "full-naive"}
CLASS = "demo/prior_val.h5"  # What a subject's run is not to forget.


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the table")
    parser.add_argument("--only", nargs="+", choices=NAIVE, default=list(NAIVE))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--short", action="store_true", help="two steps and one seed")
    parser.add_argument("--trireme", type=Path, default=REPOSITORY / "build" / "trireme")
    return parser.parse_args()


def trireme(args: argparse.Namespace, *command: object) -> str:
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run([args.trireme, *map(str, command)], cwd=REPOSITORY, env=environment, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"error: trireme {' '.join(map(str, command))} ended with code {done.returncode}:\n{done.stderr}")
    return done.stdout


def settings(overrides: list[str]) -> list[str]:
    return [word for key in overrides for word in ("--set", key)]


def train(args: argparse.Namespace, name: str, run: Path, seed: int) -> None:
    if (run / "finished").exists():
        return
    preset, changes = RUNS[name]
    changes = [f"run.seed={seed}", "sample.count=0", *changes]
    if args.short:
        changes += ["run.steps=2", "batch.global=4", "batch.micro=0", "eval.every_steps=1", "eval.timesteps=1",
                    "checkpoint.every_steps=0", 'data.validation=["demo/subject_val.h5"]']
    trireme(args, "train", REPOSITORY / "configs" / f"{preset}.toml", "--run-dir", run, *settings(changes))
    (run / "finished").touch()


def loss_on_class(args: argparse.Namespace, run: Path) -> float:
    """Of the checkpoint that is kept for use."""
    best = run / "checkpoints" / "best"
    file = "demo/subject_val.h5" if args.short else CLASS
    options = [f'data.validation=["{file}"]', "data.validation_fraction=0.0", "eval.overfit_gap=false", "eval.timesteps=8"]
    return json.loads(trireme(args, "eval", best if best.exists() else run, "--json", *settings(options)))["val_loss"]


def measure(args: argparse.Namespace, name: str, run: Path) -> dict:
    """Of the first, the last and the best evaluation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    suffix = "_ema" if "val_loss_ema" in evaluations[0] else ""
    best = min(evaluations, key=lambda line: line["val_loss" + suffix])
    result = {"base": evaluations[0]["val_loss"], "last": evaluations[-1]["val_loss" + suffix],
              "gap": evaluations[-1]["overfit_gap" + suffix], "best": best["val_loss" + suffix], "best_step": best["step"],
              "steps": evaluations[-1]["step"]}
    if name.startswith("subject"):
        result["class"] = loss_on_class(args, run)
    return result


def text_of(values: list) -> str:
    if isinstance(values[0], int):
        return ", ".join(map(str, values))
    return " / ".join(f"{value:.4f}" for value in values)


def table(results: dict) -> str:
    """One row a run; seeds side by side, since only runs of one seed share their noise."""
    columns = {"loss before": "base", "last loss": "last", "gap (trained − held out)": "gap", "best loss": "best", "at step": "best_step",
               "of": "steps", "class": "class"}
    lines = ["| run | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, seeds in results.items():
        cells = [text_of([seed[key] for seed in seeds]) if key in seeds[0] else "" for key in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| preset | last loss minus naive's | gap minus naive's |", "|---|---|---|"]
    for name, naive in NAIVE.items():
        if name not in results:
            continue
        pairs = list(zip(results[name], results[naive], strict=True))
        cells = [[preset[key] - plain[key] for preset, plain in pairs] for key in ("last", "gap")]
        lines.append(f"| {name} | " + " | ".join(f"{text_of(cell)}, mean {statistics.mean(cell):+.4f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    args = arguments()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in RUNS if name in args.only or name in {NAIVE[preset] for preset in args.only}]
    results = {name: [] for name in names}
    for seed in args.seeds[:1] if args.short else args.seeds:
        for name in names:
            run = args.out / f"{name}-{seed}"
            train(args, name, run, seed)
            results[name].append(measure(args, name, run))
            print(f"{run.name}: {results[name][-1]}", flush=True)
        (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        (args.out / "table.md").write_text(table(results))
    print(table(results), end="")


if __name__ == "__main__":
    main()
