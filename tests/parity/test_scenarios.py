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
SCENARIOS = ["subject", "style_lora", "style_full", "domain"]
OWN = {("run", "name"), ("model", "weights"), ("data", "train"), ("data", "validation")}


def test_every_scenario_runs_in_short_form(tmp_path):
    """tools/scenarios.py --short trains and measures each; its table has a row for each measurement."""
    command = [sys.executable, ROOT / "tools" / "scenarios.py", "--out", tmp_path, "--short", "--trireme",
               pathlib.Path(tiny_run.TRIREME).resolve()]
    done = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results.keys() == {"subject", "subject-naive", "style-lora", "style-lora-naive", "style-full", "domain", "full-naive"}
    assert all(len(seeds) == 1 and seeds[0]["steps"] == 2 for seeds in results.values())
    assert results["subject"][0].keys() == {"base", "last", "gap", "best", "best_step", "steps", "class"}
    table = (tmp_path / "table.md").read_text()
    assert table.count("\n") == (2 + 7) + 1 + (2 + 4)
    assert "adapter" in os.listdir(tmp_path / "subject-1" / "checkpoints" / "latest")
    assert "unet" in os.listdir(tmp_path / "subject-naive-1" / "checkpoints" / "latest")


@pytest.mark.parametrize("name", [name + size for name in SCENARIOS for size in ("_sd", "_demo")])
def test_each_value_of_a_preset_has_its_source_beside_it(name):
    """A value that is nobody's says that it is a choice. Names and files are the user's own."""
    text = (ROOT / "configs" / f"{name}.toml").read_text()
    lines = text.splitlines()
    for table, keys in tomllib.loads(text).items():
        first = lines.index(f"[{table}]")
        for key in keys:
            number = next(i for i in range(first, len(lines)) if lines[i].startswith(f"{key} ="))
            has_source = "#" in lines[number] or lines[number + 1].lstrip().startswith("#")
            assert has_source or (table, key) in OWN, f"{table}.{key} has no source"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_full_size_preset_is_valid(name, tmp_path):
    """Read by trireme, against the demo's data and model."""
    path = ROOT / "configs" / f"{name}_sd.toml"
    config = tomllib.loads(path.read_text())
    changes = ["--set", f"model.weights={ROOT}/demo/base", "--set", f"data.train={ROOT}/demo/subject_train.h5"]
    if "prior" in config["data"]:
        changes += ["--set", f"data.prior={ROOT}/demo/prior_train.h5"]
    tiny_run.run(0, "check", path, "--run-dir", tmp_path / "run", *changes)
