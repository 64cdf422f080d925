"""A tiny model, dataset and configuration, and how to run trireme on them: shared by the Python tests."""

import hashlib
import json
import os
import subprocess
import time

import h5py
import numpy as np

TRIREME = os.environ.get("TRIREME", "build/trireme")
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1")


def write_model(folder, seed=0, **changes):
    """A random UNet in diffusers' layout; returns `folder`."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    config = dict(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24, attention_head_dim=4, norm_num_groups=8)
    config.update(changes)
    UNet2DConditionModel(**config).save_pretrained(str(folder / "unet"))
    return folder


def write_dataset(path, samples=40, channels=4, height=8, width=8, text_width=24, seed=0, captions=6):
    """Latents with text, as a user's h5py script would write them; returns `path`."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as f:
        f.attrs["format"] = "trireme-latents"
        f.attrs["version"] = 1
        f.attrs["scaling_factor"] = 0.5
        f["latents"] = rng.standard_normal((samples, channels, height, width)).astype(np.float16)
        f["caption_index"] = rng.integers(0, captions, samples).astype(np.int32)
        f["text/prompt_embeds"] = rng.standard_normal((captions, 5, text_width)).astype(np.float32)
        f["text/captions"] = ["" if i == 0 else f"caption {i}" for i in range(captions)]
    return path


def write_config(path, model, dataset, run_dir, /, **tables):
    """A configuration; `tables` maps a table's name to its keys. Returns `path`."""
    content = {
        "run": {"name": "tiny", "dir": str(run_dir), "steps": 6},
        "model": {"weights": str(model)},
        "data": {"train": [str(dataset)], "validation_fraction": 0.1},
        "batch": {"global": 8},
        "optim": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 2},
        "checkpoint": {"every_steps": 2},
        "eval": {"every_steps": 3, "timesteps": 2},
        "sample": {"count": 0},
    }
    for table, keys in tables.items():
        content.setdefault(table, {}).update(keys)
    with open(path, "w") as f:
        for table, keys in content.items():
            f.write(f"[{table}]\n")
            for key, value in keys.items():
                if value is not None:
                    f.write(f"{key} = {json.dumps(value)}\n")
    return path


def run(ranks, *arguments, timeout=120, code=0, environment=None):
    """Runs trireme on `ranks` ranks (0: without mpirun); asserts the exit code; returns the process."""
    command = [TRIREME, *map(str, arguments)]
    if ranks:
        command = [*MPIRUN, "-np", str(ranks), *command]
    done = subprocess.run(command, env=ENVIRONMENT | (environment or {}), capture_output=True, text=True, timeout=timeout)
    assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def metrics(run_dir, kind="train"):
    with open(os.path.join(run_dir, "metrics.jsonl")) as f:
        return [line for line in map(json.loads, f) if line["kind"] == kind]


def weights_sha256(run_dir, checkpoint="latest", part="unet"):
    path = os.path.join(run_dir, "checkpoints", checkpoint, part, "diffusion_pytorch_model.safetensors")
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def wait_for(condition, timeout=60):
    """Polls until `condition()` holds; a deadline, not a delay."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)
