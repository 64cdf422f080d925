"""What a training step costs beside arithmetic: waiting for a device, memory."""

import os
import pathlib
import subprocess

import pytest
from tiny_run import ENVIRONMENT, MPIRUN, write_config, write_dataset, write_model

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "step_probe"


def probe(ranks, what, config, **environment):
    done = subprocess.run([*MPIRUN, "-np", str(ranks), PROBE, what, config], env={**ENVIRONMENT, **environment},
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("tables", [
    {}, dict(parallel={"shards": 4, "shard_optimizer": True}, ema={"decay": 0.9}, batch={"micro": 1}),
    dict(parallel={"precision": "fp16", "reduce_precision": "bf16"}, model={"dropout": 0.1})])
def test_a_step_never_makes_the_host_wait_for_the_device(tmp_path, tables):
    parts = write_model(tmp_path), write_dataset(tmp_path / "train.h5")
    config = write_config(tmp_path / "c.toml", *parts, tmp_path / "run", **{"run": {"steps": 9}, **tables})
    done = probe(2, "syncs", config)
    assert done.stdout.split() == ["0", "0"], done.stderr


def test_the_counter_sees_a_step_that_does_wait(tmp_path):
    """A limit on spikes is held against loss and norm on the host, at every step."""
    parts = write_model(tmp_path), write_dataset(tmp_path / "train.h5")
    config = write_config(tmp_path / "c.toml", *parts, tmp_path / "run", run={"steps": 9}, divergence={"spike_factor": 10.0})
    done = probe(2, "syncs", config)
    assert all(int(count) >= 3 for count in done.stdout.split()) and len(done.stdout.split()) == 2, done.stderr


def test_a_sharded_optimizer_takes_its_share_of_memory(tmp_path):
    """fp32 AdamW: parameters and gradients 4 + 4 bytes each on every rank, 8 bytes of state over all ranks."""
    model = write_model(tmp_path, block_out_channels=(128, 384), norm_num_groups=32, cross_attention_dim=24)
    dataset = write_dataset(tmp_path / "train.h5")
    taken = {}
    for is_sharded in (False, True):
        config = write_config(tmp_path / f"{is_sharded}.toml", model, dataset, tmp_path / "run", batch={"global": 4},
                              parallel={"shard_optimizer": is_sharded}, run={"steps": 9})
        # Freed memory goes back at once, so that only what is held counts.
        done = probe(4, "memory", config, MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
        taken[is_sharded] = float(done.stdout)
    print(taken)
    # Activations and buffers of fixed size, per parameter of this small model: the same in both runs.
    fixed = taken[False] - 16
    assert 0 <= fixed <= 1, taken
    assert taken[True] - fixed <= 8 + 8 / 4 + 0.25, taken
