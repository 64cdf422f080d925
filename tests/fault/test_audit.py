"""`trireme audit` recomputes recorded steps on any number of ranks and finds the step at which a bit was flipped."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from tiny_run import ENVIRONMENT, MPIRUN, metrics, run, write_config, write_dataset, write_model

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "step_probe"
RANKS = 8


# Runs and what is flipped: rank whose copy, step, what, the rank that stands for the place.
FLIPS = {
    "clean": (3, 0, "grads", 3),
    "own_gradient": (3, 5, "grads", 3),
    "copied_gradient": (3, 6, "grads", 0),  # The last step: no later one can show it.
    "copied_parameter": (0, 6, "params", 3),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on eight oversubscribed ranks."""
    folder = tmp_path_factory.mktemp("audit")
    parts = write_model(folder), write_dataset(folder / "train.h5")
    for name, flip in FLIPS.items():
        config = write_config(folder / f"{name}.toml", *parts, folder / name, parallel={"shards": RANKS},
                              model={"dropout": 0.1}, eval={"every_steps": 0})
        subprocess.run([*MPIRUN, "-np", str(RANKS), PROBE, "flip", config, *map(str, flip)], env=ENVIRONMENT, check=True,
                       capture_output=True, timeout=240)
    return folder


def test_a_clean_run_has_the_recorded_bits_on_other_ranks(runs):
    assert len(metrics(runs / "clean")) == 6
    done = run(1, "audit", runs / "clean", "--from", 2)
    assert "every step has the recorded bits" in done.stdout, done.stdout
    result = json.loads(run(2, "audit", runs / "clean", "--to", 3, "--json").stdout)
    assert result["equal"] and result["steps_compared"] == 3


@pytest.mark.parametrize("name", [name for name in FLIPS if name != "clean"])
def test_a_flipped_bit_is_found_at_its_step(runs, name):
    step, what = FLIPS[name][1], {"grads": "gradient", "params": "parameters"}[FLIPS[name][2]]
    result = json.loads(run(1, "audit", runs / name, "--from", 2, "--json", code=1).stdout)
    assert result["first_difference"]["step"] == step and result["first_difference"]["what"] == what
    table = run(0, "audit", runs / name, "--from", 4, "--to", 6, code=1)
    assert f"step {step}" in table.stdout
    # Up to the step before, both runs are the same run.
    lines = [[(m["grad_checksum"], m["param_checksum"]) for m in metrics(runs / n)] for n in ("clean", name)]
    assert lines[0][: step - 1] == lines[1][: step - 1] and lines[0][step - 1] != lines[1][step - 1]
    run(1, "audit", runs / name, "--to", step - 1)


def test_a_run_whose_steps_grew_is_audited_with_the_steps_of_the_time(tmp_path):
    parts = write_model(tmp_path), write_dataset(tmp_path / "train.h5")
    for steps in (4, 6):  # A schedule that depends on the run's length.
        config = write_config(tmp_path / "grown.toml", *parts, tmp_path / "grown", parallel={"shards": 4},
                              run={"steps": steps}, eval={"every_steps": 0}, lr_schedule={"name": "cosine"})
        run(2, "train", config)
    for ranks, start in ((1, 0), (2, 2), (1, 4)):
        result = json.loads(run(ranks, "audit", tmp_path / "grown", "--from", start, "--json").stdout)
        assert result["equal"] and result["steps_compared"] == 6 - start
    shutil.rmtree(tmp_path / "grown" / "checkpoints" / "step-00000004")
    refused = run(1, "audit", tmp_path / "grown", "--from", 2, code=2)
    assert "became 6 after step 4" in refused.stderr


def test_bits_and_audit_do_not_depend_on_threads(tmp_path):
    parts = write_model(tmp_path), write_dataset(tmp_path / "train.h5")
    for threads in (1, 2):
        config = write_config(tmp_path / f"{threads}.toml", *parts, tmp_path / str(threads), parallel={"shards": 4},
                              run={"steps": 2}, eval={"every_steps": 0})
        run(1, "train", config, environment={"OMP_NUM_THREADS": str(threads)})
    assert metrics(tmp_path / "1")[-1]["param_checksum"] == metrics(tmp_path / "2")[-1]["param_checksum"]
    run(1, "audit", tmp_path / "1", environment={"OMP_NUM_THREADS": "2"})


def test_what_cannot_be_audited_is_told(runs, tmp_path):
    refused = run(1, "audit", runs / "clean", "--from", 3, code=2)
    assert "2, 4, 6" in refused.stderr
    beyond = run(2, "audit", runs / "clean", "--to", 60, code=2)
    assert "step 7" in beyond.stderr
    run(1, "audit", tmp_path, code=2)
