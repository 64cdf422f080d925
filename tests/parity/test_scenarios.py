"""The presets of configs/: each demo-size scenario runs shortly, each full-size one is a valid configuration."""
import json
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest
import tiny_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
FULL_SIZE = ["subject_sd", "style_lora_sd", "style_full_sd", "domain_sd"]


def test_every_scenario_runs_in_short_form(tmp_path):
    """tools/scenarios.py --short trains and measures each; its table has a row for each measurement."""
    command = [sys.executable, ROOT / "tools" / "scenarios.py", "--out", tmp_path, "--short", "--trireme",
               pathlib.Path(tiny_run.TRIREME).resolve()]
    done = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results.keys() == {"subject", "style-lora", "style-full", "domain"}
    assert results["subject"].keys() == {"naive", "preset"} and results["subject"]["preset"][0].keys() == {
        "held-out subject", "class", "gap", "best", "steps"}
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + 4 + 3
    assert "adapter" in os.listdir(tmp_path / "subject-preset-1" / "checkpoints" / "latest")


@pytest.mark.parametrize("name", FULL_SIZE)
def test_a_preset_says_where_its_values_come_from(name, tmp_path):
    """It is read by trireme (against the demo's data and model), and each value of training has a comment."""
    path = ROOT / "configs" / f"{name}.toml"
    config = tomllib.loads(path.read_text())
    changes = ["--set", f"model.weights={ROOT}/demo/base", "--set", f"data.train={ROOT}/demo/subject_train.h5"]
    if "prior" in config["data"]:
        changes += ["--set", f"data.prior={ROOT}/demo/prior_train.h5"]
    tiny_run.run(0, "check", path, "--run-dir", tmp_path / "run", *changes)
    for table in ("adapter", "optim", "lr_schedule"):
        if table not in config:
            continue
        section = path.read_text().split(f"\n[{table}]\n")[1].split("\n[")[0]
        for key in config[table]:
            line = next(line for line in section.splitlines() if line.startswith(f"{key} "))
            assert "#" in line or key in ("type", "eps", "warmup_steps", "min_lr_ratio"), f"{key} has no source"
