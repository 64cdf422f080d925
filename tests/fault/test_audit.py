"""`trireme audit` recomputes recorded steps on any number of ranks and finds the step at which a bit was flipped."""

import json
import os
import pathlib
import subprocess

import pytest
from tiny_run import ENVIRONMENT, MPIRUN, metrics, run, write_config, write_dataset, write_model

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "step_probe"
RANKS = 8


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A clean run on eight oversubscribed ranks, and one with a bit flipped at step 5 on rank 3."""
    folder = tmp_path_factory.mktemp("audit")
    parts = write_model(folder), write_dataset(folder / "train.h5")
    for name, step in (("clean", 0), ("flipped", 5)):
        config = write_config(folder / f"{name}.toml", *parts, folder / name, parallel={"shards": RANKS},
                              model={"dropout": 0.1}, eval={"every_steps": 0})
        subprocess.run([*MPIRUN, "-np", str(RANKS), PROBE, "flip", config, "3", str(step)], env=ENVIRONMENT, check=True,
                       capture_output=True, timeout=240)
    return folder


def test_a_clean_run_has_the_recorded_bits_on_other_ranks(runs):
    assert len(metrics(runs / "clean")) == 6
    done = run(1, "audit", runs / "clean", "--from", 2)
    assert "every step has the recorded bits" in done.stdout, done.stdout
    result = json.loads(run(2, "audit", runs / "clean", "--to", 3, "--json").stdout)
    assert result["equal"] and result["steps_compared"] == 3


def test_a_flipped_bit_is_found_at_its_step(runs):
    done = run(1, "audit", runs / "flipped", "--from", 2, "--json", code=1)
    result = json.loads(done.stdout)
    assert result["first_difference"]["step"] == 5 and result["first_difference"]["what"] == "gradient"
    table = run(0, "audit", runs / "flipped", "--from", 4, "--to", 6, code=1)
    assert "step 5" in table.stdout
    # Up to the step before, both runs are the same run.
    lines = [[(m["grad_checksum"], m["param_checksum"]) for m in metrics(runs / name)] for name in ("clean", "flipped")]
    assert lines[0][:4] == lines[1][:4] and lines[0][4] != lines[1][4]
    run(1, "audit", runs / "flipped", "--to", 4)


def test_what_cannot_be_audited_is_told(runs, tmp_path):
    refused = run(1, "audit", runs / "clean", "--from", 3, code=2)
    assert "2, 4, 6" in refused.stderr
    beyond = run(2, "audit", runs / "clean", "--to", 60, code=2)
    assert "step 7" in beyond.stderr
    run(1, "audit", tmp_path, code=2)
