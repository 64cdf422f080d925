"""What a user gets wrong ends with one paragraph and the right code, at one and two ranks, in time."""
import json
import os
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

TRIREME = os.environ["TRIREME"]
DEADLINE_SECONDS = 90  # Far beyond what it takes; a hang fails the test.
CHANNELS, SIZE, LENGTH, WIDTH = 4, 8, 3, 16

CONFIG = """
[run]
dir = "run"
steps = 2

[model]
weights = "model"

[data]
train = ["train.h5"]

[batch]
global = 4

[checkpoint]
every_steps = 0

[eval]
every_steps = 0

[sample]
count = 0
"""


def write_dataset(file, latents=None, text_width=WIDTH, with_text=True):
    rng = np.random.default_rng(0)
    if latents is None:
        latents = rng.normal(size=(12, CHANNELS, SIZE, SIZE)).astype(np.float16)
    with h5py.File(file, "w") as f:
        f.attrs.update({"format": "trireme-latents", "version": 1, "scaling_factor": 1.0,
                        "shift_factor": 0.0, "vae": "none"})
        f["latents"] = latents
        if with_text:
            f["caption_index"] = np.arange(len(latents), dtype=np.int32) % 2
            f["text/prompt_embeds"] = rng.normal(size=(2, LENGTH, text_width)).astype(np.float16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which training works."""
    import torch
    from diffusers import UNet2DConditionModel
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=SIZE, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(16, 32),
        layers_per_block=1, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH,
        attention_head_dim=2, norm_num_groups=8).save_pretrained(folder / "model")
    write_dataset(folder / "train.h5")
    (folder / "config.toml").write_text(CONFIG)
    return folder


@pytest.fixture
def work(whole, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(whole, folder)
    return folder


def run(folder, ranks, *arguments, verb="train"):
    command = [TRIREME, verb, "config.toml", *arguments]
    if ranks > 1:
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
                   "mpi_yield_when_idle", "1", "-np", str(ranks), *command]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True,
                              timeout=DEADLINE_SECONDS, env={**os.environ, "OMP_NUM_THREADS": "1"})
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"a hang: {' '.join(command)} did not end; stderr: {late.stderr}")


def expect(done, code, *words):
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code, f"code {done.returncode}, not {code}: {done.stderr}"
    assert len(errors) == 1, f"{len(errors)} error paragraphs, not one: {done.stderr}"
    for word in words:
        assert word in errors[0], f"the error does not name {word}: {errors[0]}"
    for trace in ("frame #", "Exception raised from", "Traceback", "*** Process received signal"):
        assert trace not in done.stderr, done.stderr


def truncate(file, share):
    size = file.stat().st_size
    with open(file, "r+b") as f:
        f.truncate(int(size * share))


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def rewrite_weights(folder, change):
    file = folder / "model" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_model_config(folder, **changes):
    file = folder / "model" / "config.json"
    config = json.loads(file.read_text())
    config.update(changes)
    file.write_text(json.dumps(config))


def nan_in_latents(folder):
    latents = np.ones((12, CHANNELS, SIZE, SIZE), np.float16)
    latents[7, 1, 2, 3] = np.nan
    write_dataset(folder / "train.h5", latents)


def take_classes(folder, labels):
    """The model learns of three classes, the data's labels are these."""
    edit_model_config(folder, num_class_embeds=3)
    rewrite_weights(folder, lambda tensors: tensors.update({"class_embedding.weight": np.zeros((3, 64), np.float32)}))
    with h5py.File(folder / "train.h5", "r+") as f:
        if labels:
            f["labels"] = np.array(labels, np.int64)


# Name: (code, words of the message, what to do to the folder).
CASES = {
    "missing_config": (2, ["config.toml"], lambda f: (f / "config.toml").unlink()),
    "unknown_key": (2, ["config.toml:", "seeed", "seed"],
                    lambda f: edit(f / "config.toml", "[run]", "[run]\nseeed = 3")),
    "unknown_table": (2, ["config.toml:", "optimm"],
                      lambda f: edit(f / "config.toml", "[batch]", "[optimm]\nlr = 1.0\n[batch]")),
    "wrong_type": (2, ["config.toml:", "steps"],
                   lambda f: edit(f / "config.toml", "steps = 2", 'steps = "two"')),
    "out_of_range": (2, ["config.toml:", "lr"],
                     lambda f: edit(f / "config.toml", "[batch]", "[optim]\nlr = -1.0\n[batch]")),
    "toml_syntax": (2, ["config.toml:"],
                    lambda f: edit(f / "config.toml", "steps = 2", "steps = = 2")),
    "two_batch_keys": (2, ["batch.global", "batch.per_rank"],
                       lambda f: edit(f / "config.toml", "global = 4", "global = 4\nper_rank = 2")),
    "micro_does_not_divide": (2, ["batch.micro"],
                              lambda f: edit(f / "config.toml", "global = 4", "global = 4\nmicro = 3")),
    "shards_do_not_divide": (2, ["shards"],
                             lambda f: edit(f / "config.toml", "[batch]", "[parallel]\nshards = 8\n[batch]")),
    "missing_dataset": (3, ["train.h5"], lambda f: (f / "train.h5").unlink()),
    "dataset_is_a_folder": (3, ["train.h5"],
                            lambda f: ((f / "train.h5").unlink(), (f / "train.h5").mkdir())),
    "dataset_truncated": (3, ["train.h5"], lambda f: truncate(f / "train.h5", 0.6)),
    "dataset_truncated_in_header": (3, ["train.h5"], lambda f: truncate(f / "train.h5", 0.01)),
    "dataset_empty": (3, ["train.h5"], lambda f: (f / "train.h5").write_bytes(b"")),
    "dataset_is_text": (3, ["train.h5"], lambda f: (f / "train.h5").write_text("not HDF5\n" * 99)),
    "nan_in_latents": (3, ["train.h5", "7"], nan_in_latents),
    "nan_in_a_sample_that_no_step_draws": (3, ["train.h5", "391"], lambda f: write_dataset(
        f / "train.h5", np.pad(np.full((1, CHANNELS, SIZE, SIZE), np.nan, np.float16), [(391, 8), (0, 0), (0, 0), (0, 0)]))),
    "no_text_in_the_second_file": (3, ["b.h5", "prompt_embeds"], lambda f: (
        write_dataset(f / "b.h5", with_text=False),
        edit(f / "config.toml", '["train.h5"]', '["train.h5", "b.h5"]'))),
    "wrong_channels": (3, ["train.h5", "channels"], lambda f: write_dataset(
        f / "train.h5", np.ones((12, 3, SIZE, SIZE), np.float16))),
    "latents_of_three_dimensions": (3, ["train.h5", "latents"], lambda f: write_dataset(
        f / "train.h5", np.ones((12, SIZE, SIZE), np.float16))),
    "text_width": (3, ["train.h5", "17", str(WIDTH)],
                   lambda f: write_dataset(f / "train.h5", text_width=17)),
    "no_text": (3, ["train.h5"], lambda f: write_dataset(f / "train.h5", with_text=False)),
    "no_labels": (3, ["train.h5", "labels"], lambda f: take_classes(f, [])),
    "label_beyond_the_classes": (3, ["train.h5", "labels", "row 9", "3"], lambda f: take_classes(f, [0, 1, 2] * 3 + [3, 0, 1])),
    "missing_weights": (3, ["model"], lambda f: shutil.rmtree(f / "model")),
    "missing_weights_file": (
        3, ["model"], lambda f: (f / "model" / "diffusion_pytorch_model.safetensors").unlink()),
    "weights_truncated": (3, ["safetensors"], lambda f: truncate(
        f / "model" / "diffusion_pytorch_model.safetensors", 0.7)),
    "weights_truncated_in_header": (3, ["safetensors"], lambda f: truncate(
        f / "model" / "diffusion_pytorch_model.safetensors", 0.0005)),
    "weights_lack_a_tensor": (3, ["conv_in.bias"], lambda f: rewrite_weights(
        f, lambda tensors: tensors.pop("conv_in.bias"))),
    "weights_of_wrong_shape": (3, ["conv_in.bias"], lambda f: rewrite_weights(
        f, lambda tensors: tensors.update({"conv_in.bias": np.zeros(5, np.float32)}))),
    "model_config_not_json": (3, ["config.json"],
                              lambda f: (f / "model" / "config.json").write_text("{")),
    "model_config_unrepresentable": (3, ["config.json", "act_fn"],
                                     lambda f: edit_model_config(f, act_fn="xyz")),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(work, name):
    code, words, spoil = CASES[name]
    spoil(work)
    expect(run(work, 2), code, *words)


# Without mpirun there is nothing to agree on: one case of each kind tells.
@pytest.mark.parametrize("name", ["unknown_key", "shards_do_not_divide", "dataset_truncated",
                                  "nan_in_latents", "text_width", "weights_truncated"])
def test_bad_input_of_a_lone_rank(work, name):
    code, words, spoil = CASES[name]
    spoil(work)
    expect(run(work, 1), code, *words)


@pytest.mark.parametrize("name", CASES)
def test_check_refuses_what_train_refuses(work, name):
    code, words, spoil = CASES[name]
    spoil(work)
    expect(run(work, 1, verb="check"), code, *words)


@pytest.mark.parametrize("verb,ranks", [("train", 1), ("train", 2), ("check", 1)])
def test_run_directory_that_cannot_be_written(work, verb, ranks):
    # Root may write anywhere, but not below a file.
    (work / "plain").write_text("a file")
    expect(run(work, ranks, "--run-dir", "plain/run", verb=verb), 2, "plain")
    expect(run(work, ranks, "--run-dir", "/proc/trireme/run", verb=verb), 2, "/proc")


def test_batch_that_the_ranks_do_not_divide(work):
    expect(run(work, 2, "--set", "batch.global=5"), 2, "batch.global", "5", "2")
    expect(run(work, 2, "--set", "parallel.shards=1"), 2, "parallel.shards", "2")


def test_a_mistake_of_one_rank_ends_all(work):
    # Only rank 1 misses its file: it is named by a path that differs between ranks.
    script = work / "rank.sh"
    script.write_text('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 1 ] && cd lonely\n'
                      f'exec "{TRIREME}" train "{work}/config.toml" --run-dir "{work}/run"\n')
    script.chmod(0o755)
    (work / "lonely").mkdir()
    shutil.copytree(work / "model", work / "lonely" / "model")
    done = subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2",
         str(script)], cwd=work, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    expect(done, 3, "train.h5")


@pytest.mark.parametrize("arguments", [["--set", "nonsense"], ["--set", "optim.lrr=1"],
                                       ["--unknown-flag"], ["--set", "run.steps=0"]])
def test_wrong_arguments(work, arguments):
    expect(run(work, 1, *arguments), 2)


def test_the_untouched_folder_trains(work):
    done = run(work, 2)
    assert done.returncode == 0, done.stderr
    assert run(work, 1, verb="check").returncode == 0
