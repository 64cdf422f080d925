"""What a run decides by its own numbers: to skip, to stop, what to keep; the same at any ranks and after a resume."""

import json
import os
import pathlib
import shutil
import subprocess
import tomllib

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import ENVIRONMENT, MPIRUN, metrics, run, weights_sha256, write_config, write_dataset, write_model

from fault.test_resume import without_times
from parity import reference_train
from parity.test_train_losses import compare_weights

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "step_probe"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder), write_dataset(folder / "train.h5")


def write(folder, parts, name="run", **tables):
    tables = {"eval": {"every_steps": 0}, "lr_schedule": {"warmup_steps": 0, "name": "constant"}} | tables
    return write_config(folder / f"{name}.toml", *parts, folder / name, **tables), folder / name


def checkpoint(run_dir, name="latest"):
    return os.path.basename(os.path.realpath(run_dir / "checkpoints" / name))


def all_finite(run_dir):
    for path in (run_dir / "checkpoints").glob("step-*/*/*.safetensors"):
        assert all(torch.isfinite(v).all() for v in load_file(path).values()), path


GROWING = dict(batch={"global": 4, "grow_at": [8, 20], "grow_to": [8, 16]}, parallel={"shards": 4},
               run={"steps": 6}, checkpoint={"every_steps": 1, "keep": 0})


def test_a_growing_batch_has_the_same_bits_at_any_ranks_and_after_resumes(tmp_path, parts):
    objective = {"timestep_sampling": "low_discrepancy"}
    config, whole = write(tmp_path, parts, "whole", objective=objective, **GROWING)
    run(1, "train", config)
    assert [line["samples"] for line in metrics(whole)] == [4, 8, 16, 24, 40, 56]
    config, parted = write(tmp_path, parts, "parted", objective=objective, **GROWING)
    for ranks, keep in ((4, 1), (1, 4), (2, 6)):  # Within and between the phases.
        run(ranks, "train", config)
        for step in range(keep + 1, 7):
            shutil.rmtree(parted / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    assert weights_sha256(whole) == weights_sha256(parted)
    assert without_times(metrics(whole)) == without_times(metrics(parted))


def test_a_growing_batch_must_divide(tmp_path, parts):
    config, _ = write(tmp_path, parts, batch={"global": 4, "grow_at": [8], "grow_to": [9]})
    refused = run(2, "train", config, code=2)
    assert "batch.grow_to = 9" in refused.stderr
    for batch in ({"grow_at": [8, 4], "grow_to": [8, 12]}, {"grow_at": [8], "grow_to": [2]}, {"grow_at": [8]}):
        config, _ = write(tmp_path, parts, batch={"global": 4} | batch)
        assert "batch.grow_" in run(0, "check", config, code=2).stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_divergence_stops_with_code_5_and_finite_weights(tmp_path, parts, ranks):
    config, run_dir = write(tmp_path, parts, optim={"lr": 1e25, "max_grad_norm": 0.0}, run={"steps": 50})
    done = run(ranks, "train", config, code=5)
    assert "diverged" in done.stderr
    all_finite(run_dir)
    assert "diverged" in [line["what"] for line in metrics(run_dir, "event")]
    assert checkpoint(run_dir) == f"step-{metrics(run_dir)[-1]['step']:08d}"


@pytest.mark.parametrize("ranks,sharded", [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("skipped", [1, 3])
def test_a_skipped_step_is_as_if_its_update_had_not_been(tmp_path, parts, ranks, sharded, skipped):
    """Of weights, moments with their bias correction and the average with its ramp; the rate goes by the step."""
    config, run_dir = write(tmp_path, parts, optim={"eps": 1e-3}, ema={"decay": 0.9}, divergence={"policy": "skip"},
                            lr_schedule={"name": "cosine", "warmup_steps": 2}, parallel={"shard_optimizer": sharded},
                            data={"validation_fraction": None})
    order = tmp_path / "order.tsv"
    order.write_text(run(0, "inspect", config, "--order", "1:6").stdout)
    lines, weights, average = reference_train.train(tomllib.loads(config.read_text()), order, 6, skipped={skipped})
    subprocess.run([*MPIRUN, "-np", str(ranks), PROBE, "spoil", config, str(skipped)], env=ENVIRONMENT, check=True, timeout=100)
    assert [line["step"] for line in metrics(run_dir, "event") if line["what"] == "skipped_update"] == [skipped]
    for ours, theirs in zip(metrics(run_dir), lines, strict=True):
        assert {k: ours[k] for k in ("step", "samples")} == {k: theirs[k] for k in ("step", "samples")}
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5) and ours["lr"] == pytest.approx(theirs["lr"])
        assert (ours["grad_norm"] is None) == (ours["step"] == skipped)
    compare_weights(run_dir / "checkpoints" / "latest" / "unet", weights)
    compare_weights(run_dir / "checkpoints" / "latest" / "ema", average)


def test_a_diverging_run_may_skip_up_to_a_limit(tmp_path, parts):
    config, run_dir = write(tmp_path, parts, optim={"lr": 1e25, "max_grad_norm": 0.0}, run={"steps": 50}, ema={"decay": 0.5},
                            divergence={"policy": "skip", "max_skips": 3}, checkpoint={"every_steps": 1, "keep": 0})
    run(2, "train", config, code=5)
    all_finite(run_dir)
    skipped = [line for line in metrics(run_dir, "event") if line["what"] == "skipped_update"]
    lines = metrics(run_dir)
    assert len(skipped) == 3 and [line["step"] for line in skipped] == [line["step"] for line in lines[-3:]]
    # A skipped step leaves everything alone that an update changes.
    for part in ("unet/diffusion_pytorch_model", "ema/diffusion_pytorch_model", "optimizer"):
        before, *after = [(run_dir / "checkpoints" / f"step-{line['step']:08d}" / f"{part}.safetensors").read_bytes()
                          for line in lines[-4:]]
        assert all(content == before for content in after), part


def test_spikes_are_skipped_alike_after_a_resume(tmp_path, parts):
    # A rate so small that the loss only fluctuates.
    tables = dict(run={"steps": 30}, optim={"lr": 1e-6},
                  divergence={"policy": "skip", "spike_factor": 1.02, "max_skips": 30},
                  checkpoint={"every_steps": 5, "keep": 0}, parallel={"shards": 2})
    config, whole = write(tmp_path, parts, "whole", **tables)
    run(1, "train", config)
    skipped = [line["step"] for line in metrics(whole, "event") if line["what"] == "skipped_update"]
    assert skipped and min(skipped) > 20, skipped
    config, parted = write(tmp_path, parts, "parted", **tables)
    run(2, "train", config)
    shutil.rmtree(parted / "checkpoints" / "step-00000030")
    run(1, "train", config)
    assert weights_sha256(whole) == weights_sha256(parted)
    assert without_times(metrics(whole)) == without_times(metrics(parted))


# A rate that raises the validation loss from some step on.
WORSENING = dict(optim={"lr": 3e-2}, run={"steps": 12}, eval={"every_steps": 1, "timesteps": 2},
                 checkpoint={"every_steps": 4, "keep": 1}, ema={"decay": 0.5})


def test_early_stopping_keeps_the_best_beside_the_newest(tmp_path, parts):
    config, run_dir = write(tmp_path, parts, **WORSENING, early_stopping={"patience": 2, "metric": "val_loss_ema"})
    run(2, "train", config)
    evaluations = metrics(run_dir, "eval")
    values = [line["val_loss_ema"] for line in evaluations]
    best = 1 + int(np.argmin(values[1:]))
    assert checkpoint(run_dir, "best") == f"step-{best:08d}"
    assert evaluations[-1]["step"] == metrics(run_dir)[-1]["step"]
    assert sorted(p.name for p in (run_dir / "checkpoints").glob("step-*")) == sorted(
        {f"step-{best:08d}", checkpoint(run_dir)})
    if evaluations[-1]["step"] < 12:  # Stopped early: there is nothing left to do.
        assert "early_stop" in [line["what"] for line in metrics(run_dir, "event")]
        assert min(values[:-2]) <= min(values[-2:])
        run(1, "train", config)
        assert metrics(run_dir, "eval") == evaluations


def test_the_best_of_the_regular_checkpoints_is_kept_by_itself(tmp_path, parts):
    config, run_dir = write(tmp_path, parts, **WORSENING)
    run(1, "train", config)
    losses = {line["step"]: line["val_loss"] for line in metrics(run_dir, "eval")}
    best = min((4, 8, 12), key=losses.get)
    assert checkpoint(run_dir, "best") == f"step-{best:08d}"
    assert (run_dir / "checkpoints" / f"step-{best:08d}").is_dir()


def test_any_number_of_an_evaluation_can_stop_a_run(tmp_path, parts):
    config, run_dir = write(tmp_path, parts, **WORSENING, early_stopping={
        "patience": 1, "metric": "overfit_gap", "mode": "max", "min_delta": 100.0})
    run(1, "train", config)
    assert [line["step"] for line in metrics(run_dir, "eval")] == [0, 1]
    for metric, words in (("fid", "scores.metrics"), ("val_loss_band_9", "val_loss_band_1")):
        config, _ = write(tmp_path, parts, metric, **WORSENING, early_stopping={"patience": 1, "metric": metric})
        refused = run(2, "train", config, code=2)
        assert metric in refused.stderr and words in refused.stderr


def test_evaluations_by_band_with_average_and_gap(tmp_path, parts):
    config, run_dir = write(tmp_path, parts, ema={"decay": 0.5}, eval={"every_steps": 3, "timesteps": 3})
    run(2, "train", config)
    for line in metrics(run_dir, "eval"):
        for suffix in ("", "_ema"):
            bands = [line[f"val_loss{suffix}_band_{k}"] for k in range(3)]
            assert abs(sum(bands) / 3 - line[f"val_loss{suffix}"]) < 1e-6
            gap = line[f"train_loss_fixed{suffix}"] - line[f"val_loss{suffix}"]
            assert abs(gap - line[f"overfit_gap{suffix}"]) < 1e-12
    assert metrics(run_dir, "eval")[0]["overfit_gap"] == metrics(run_dir, "eval")[0]["overfit_gap_ema"]
    shown = json.loads(run(1, "eval", run_dir, "--json").stdout)
    last = metrics(run_dir, "eval")[-1]
    assert {k: shown[k] for k in last if k not in ("kind", "step")} == pytest.approx(
        {k: v for k, v in last.items() if k not in ("kind", "step")})


def test_the_gap_is_zero_where_validation_is_the_training_data(tmp_path, parts):
    config, run_dir = write(tmp_path, parts, eval={"every_steps": 6}, data={
        "validation_fraction": None, "validation": [str(parts[1])]})
    run(2, "train", config)
    for line in metrics(run_dir, "eval"):
        assert abs(line["overfit_gap"]) < 1e-7


@pytest.mark.parametrize("ranks", [1, 2])
def test_samples_are_compared_with_the_nearest_training_latents(tmp_path, parts, ranks):
    config, run_dir = write(tmp_path, parts, eval={"every_steps": 6, "memorisation": "on", "timesteps": 1},
                            sample={"count": 3, "steps": 2})
    run(ranks, "train", config)
    line = metrics(run_dir, "eval")[-1]
    rows = [json.loads(row) for row in open(run_dir / "samples" / "step-00000006.nearest.jsonl")]
    assert len(rows) == 3
    assert line["nearest_train_distance"] == pytest.approx(np.mean([row["distance"] for row in rows]))
    assert line["memorised_fraction"] == np.mean([3 * row["distance"] < row["second_distance"] for row in rows])
    with h5py.File(parts[1]) as f:
        latents = f["latents"][:].astype(np.float64) * f.attrs["scaling_factor"]
    for row in rows:
        # The distance between two training latents bounds what two distances to them can differ by.
        apart = np.sqrt(((latents - latents[row["sample"]]) ** 2).mean((1, 2, 3)))
        assert row["second_distance"] >= row["distance"] > 0
        assert row["second_distance"] <= row["distance"] + np.sort(apart)[-1]
