"""What only some ranks have wrong is known to all of them, and named."""

import json
import os
import subprocess

import h5py
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
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


def other_weights(folder):
    write_model(folder / "model", seed=1)


def other_head_count(folder):  # The same tensors, another function.
    write_model(folder / "model", attention_head_dim=8)


def other_layers(folder):
    write_model(folder / "model", layers_per_block=2)


def other_prediction(folder):
    (folder / "model" / "scheduler").mkdir()
    (folder / "model" / "scheduler" / "scheduler_config.json").write_text(json.dumps(
        {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "beta_schedule": "scaled_linear",
         "beta_start": 0.00085, "beta_end": 0.012}))


def other_scaling(folder):
    with h5py.File(folder / "train.h5", "r+") as f:
        f.attrs["scaling_factor"] = 0.7


def other_latents(folder):
    write_dataset(folder / "train.h5", seed=5)


def other_length(folder):
    write_dataset(folder / "train.h5", samples=39)


LORA = dict(adapter={"type": "lora", "rank": 2})
FROZEN = dict(freeze={"patterns": ["^(?!conv_out)"]})


@pytest.mark.parametrize("change,tables,words", [
    (other_weights, {}, ["models differ", "'conv_in.weight' of shape (32, 4, 3, 3) with checksum"]),
    (other_weights, LORA, ["models differ", "'conv_in.weight'"]),
    (other_weights, FROZEN, ["models differ", "'conv_in.weight'"]),
    (other_head_count, {}, ["rank 0 has attention_head_dim = [4,4]", "rank 1 has attention_head_dim = [8,8]"]),
    (other_layers, {}, ["rank 0 has layers_per_block = [1,1]", "rank 1 has layers_per_block = [2,2]"]),
    (other_prediction, {}, ["rank 0 has objective.prediction = \"epsilon\"", "rank 1 has objective.prediction = \"v_prediction\""]),
    (other_scaling, {}, ["files of data.train differ", "scaling_factor = 0.5, rank 1", "scaling_factor = 0.7"]),
    (other_latents, {}, ["files of data.train differ", "\"train.h5\", bucket /, row 0: checksum"]),
    (other_length, {}, ["40 latents", "39 latents"]),
])
def test_ranks_that_read_something_else_are_refused(tmp_path, change, tables, words):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_model(folder / "model")
        write_dataset(folder / "train.h5")
    change(folders[1])
    config = write_config(tmp_path / "c.toml", "model", "train.h5", tmp_path / "run", **tables)
    errors = run_each_in(folders, config, code=2)
    for word in words:
        assert word in errors, errors
    assert not (tmp_path / "run").exists()


def write_data_that_diverges(path, sample, factor):
    """16 samples, of which one is `factor` times as large."""
    dataset = write_dataset(path, samples=16)
    with h5py.File(dataset, "r+") as f:
        latents = f["latents"][()].astype(np.float32)
        latents[sample] *= factor
        del f["latents"]
        f["latents"] = latents
    return dataset


def reasons(run_dir):
    return {line["what"]: line["reason"] for line in metrics(run_dir, "event") if "reason" in line}


# Samples 8 to 15 make step 2; 13 is the sixth of them.
SAMPLE = 13
IN_ORDER = dict(data={"shuffle": False, "validation_fraction": 0.0}, eval={"every_steps": 0}, run={"steps": 2})


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_loss_that_is_not_finite_is_named_by_rank_step_and_sample(tmp_path, ranks, policy):
    model = write_model(tmp_path)
    dataset = write_data_that_diverges(tmp_path / "train.h5", SAMPLE, 1e30)  # Finite, but its square is not.
    config = write_config(tmp_path / "c.toml", model, dataset, tmp_path / "run", divergence={"policy": policy}, **IN_ORDER)
    done = run(ranks, "train", config, code=5 if policy == "stop" else 0)
    place = f'rank {5 * ranks // 8} has loss not finite for sample 13 ("{dataset}", bucket /, row 13)'
    before = "step 2: " if policy == "stop" else "step 2 makes no update: loss nan, gradient norm nan; "
    assert before + place in done.stderr and "-nan" not in done.stderr, done.stderr
    assert reasons(tmp_path / "run") == {"diverged" if policy == "stop" else "skipped_update": "loss nan, gradient norm nan; " + place}


@pytest.mark.parametrize("ranks,tables,rank,samples", [
    (1, {}, 0, range(8, 16)),
    (1, {"batch": {"global": 8, "micro": 2}}, 0, range(8, 16)),
    (1, {"parallel": {"shards": 4}}, 0, [12, 13]),
    (2, {}, 1, range(12, 16)),
    (2, {"batch": {"global": 8, "micro": 1}}, 1, range(12, 16)),
    (2, {"parallel": {"shards": 8}}, 1, [13]),
    (2, {"parallel": {"shard_optimizer": True}}, 1, range(12, 16)),
    (4, {"divergence": {"policy": "skip"}}, 2, [12, 13]),
])
def test_a_gradient_that_is_not_finite_is_named_by_rank_step_and_the_samples_of_its_piece(tmp_path, ranks, tables, rank, samples):
    """The loss is finite; backward meets a factor of 1e26 that forward has taken back."""
    model = write_model(tmp_path)
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_out.weight"] *= 1e26
    weights["conv_norm_out.weight"] *= 1e-26
    weights["conv_norm_out.bias"] *= 1e-26
    save_file(weights, path, metadata={"format": "pt"})
    dataset = write_data_that_diverges(tmp_path / "train.h5", SAMPLE, 3e17)
    skips = "divergence" in tables
    config = write_config(tmp_path / "c.toml", model, dataset, tmp_path / "run", objective={"prediction": "sample"},
                          optim={"lr": 1e-30, "weight_decay": 0.0}, **IN_ORDER, **tables)
    done = run(ranks, "train", config, code=0 if skips else 5)
    named = ", ".join(f'{i} ("{dataset}", bucket /, row {i})' for i in samples)
    place = f"rank {rank} has gradient not finite, from sample{'s' if len(samples) > 1 else ''} {named}"
    assert place in done.stderr and "step 2" in done.stderr, done.stderr
    [reason] = reasons(tmp_path / "run").values()
    assert place in reason and "-nan" not in reason, reason
