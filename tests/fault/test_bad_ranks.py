"""What only some ranks have wrong is known to all of them, and named."""

import os
import subprocess

import h5py
import numpy as np
import pytest
from tiny_run import ENVIRONMENT, MPIRUN, TRIREME, metrics, run, write_config, write_dataset, write_model

TRIREME_ABSOLUTE = os.path.abspath(TRIREME)


def run_each_in(folders, config, code):
    """One rank in each folder, so that relative paths mean other files."""
    command = list(MPIRUN)
    for i, folder in enumerate(folders):
        command += ([":"] if i else []) + ["-np", "1", "-wdir", str(folder), TRIREME_ABSOLUTE, "train", str(config)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, f"{done.returncode}\n{done.stderr}"
    return done.stderr


@pytest.mark.parametrize("change,words", [
    (dict(seed=1), ["initial weights differ", "conv_in.weight"]),
    (dict(block_out_channels=(32, 96)), ["models differ", "96"]),
    (dict(layers_per_block=2), ["models differ"]),
])
def test_ranks_with_other_models_are_refused(tmp_path, change, words):
    dataset = write_dataset(tmp_path / "train.h5")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, changes in zip(folders, ({}, change)):
        folder.mkdir()
        write_model(folder / "model", **changes)
    config = write_config(tmp_path / "c.toml", "model", dataset, tmp_path / "run")
    errors = run_each_in(folders, config, code=2)
    assert "rank 1" in errors, errors
    for word in words:
        assert word in errors, errors
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or metrics(tmp_path / "run") == []


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_loss_that_is_not_finite_is_named_by_rank_step_and_sample(tmp_path, ranks):
    model = write_model(tmp_path)
    dataset = write_dataset(tmp_path / "train.h5", samples=16)
    with h5py.File(dataset, "r+") as f:
        latents = f["latents"][()].astype(np.float32)
        latents[13] = 1e30  # Finite, but its square is not.
        del f["latents"]
        f["latents"] = latents
    config = write_config(tmp_path / "c.toml", model, dataset, tmp_path / "run", data={"shuffle": False,
                          "validation_fraction": 0.0}, eval={"every_steps": 0})
    done = run(ranks, "train", config, code=5)
    # Samples 8 to 15 make step 2; 13 is the sixth of them.
    rank = 5 * ranks // 8
    assert f"step 2: rank {rank}" in done.stderr and "sample 13" in done.stderr, done.stderr
    assert len(metrics(tmp_path / "run")) == 1
