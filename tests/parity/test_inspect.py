"""`inspect`: names what is there, prints the order, and --verify finds single changed bytes."""
import ctypes
import os
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

TRIREME = os.environ["TRIREME"]


XXHASH = ctypes.CDLL("libxxhash.so.0")
XXHASH.XXH3_64bits.restype = ctypes.c_uint64


def xxh3(data):
    return XXHASH.XXH3_64bits(data, ctypes.c_size_t(len(data)))


def inspect(*arguments, folder=None):
    return subprocess.run([TRIREME, "inspect", *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, cwd=folder)


def expect_wrong(done, *words):
    assert done.returncode == 3, (done.returncode, done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0], errors[0]


def write_dataset(file, rows=20, hashes=True):
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(rows, 4, 6, 8)).astype(np.float16)
    with h5py.File(file, "w") as f:
        f.attrs.update({"format": "trireme-latents", "version": 1, "scaling_factor": 0.25})
        f["latents"] = latents
        f["small/latents"] = rng.normal(size=(5, 4, 2, 2)).astype(np.float32)
        if hashes:
            f["xxh3"] = np.array([xxh3(row.tobytes()) for row in latents], np.uint64)
        f["caption_index"] = np.ones(rows, np.int32)
        f["text/prompt_embeds"] = np.ones((2, 3, 4), np.float32)
        f.create_dataset("text/captions", data=["", "two\nlines"], dtype=h5py.string_dtype())
    return latents


def offset_of(file, name):
    with h5py.File(file) as f:
        return f[name].id.get_offset()


def change_byte(file, offset):
    with open(file, "r+b") as f:
        f.seek(offset)
        old = f.read(1)
        f.seek(offset)
        f.write(bytes([old[0] ^ 1]))


def test_dataset(tmp_path):
    file = tmp_path / "a.h5"
    write_dataset(file, hashes=False)
    done = inspect(file)
    assert done.returncode == 0, done.stderr
    for words in ["25", "4 x 6 x 8", "4 x 2 x 2", "2 distinct", "3 x 4", "scaling_factor", "0.25"]:
        assert words in done.stdout, done.stdout
    assert inspect(file, "--verify").returncode == 0


def test_a_dataset_of_any_name(tmp_path):
    write_dataset(tmp_path / "latents.data")
    done = inspect(tmp_path / "latents.data")
    assert done.returncode == 0 and "25" in done.stdout, done.stderr


def test_verify_finds_a_changed_byte_of_a_latent(tmp_path):
    file = tmp_path / "a.h5"
    write_dataset(file)
    assert inspect(file, "--verify").returncode == 0
    change_byte(file, offset_of(file, "latents") + 7 * 4 * 6 * 8 * 2 + 11)
    assert inspect(file).returncode == 0
    expect_wrong(inspect(file, "--verify"), "a.h5", "row 7")


def test_verify_finds_what_is_not_finite(tmp_path):
    for name, row in [("latents", 3), ("small/latents", 2), ("text/prompt_embeds", 1)]:
        file = tmp_path / "a.h5"
        write_dataset(file, hashes=False)
        with h5py.File(file, "r+") as f:
            values = f[name][:]
            values[row].reshape(-1)[5] = np.inf
            f[name][:] = values
        expect_wrong(inspect(file, "--verify"), "a.h5", f"row {row}")


def test_weights_file(tmp_path):
    file = tmp_path / "w.safetensors"
    weights = {"a.weight": np.ones((3, 4), np.float32), "b.bias": np.ones(5, np.float16)}
    save_file(weights, file, metadata={"format": "pt"})
    done = inspect(file, "--verify")
    assert done.returncode == 0, done.stderr
    for words in ["2 tensors", "12 values in F32", "5 values in F16", "format"]:
        assert words in done.stdout, done.stdout
    weights["b.bias"][3] = np.nan
    save_file(weights, file)
    assert inspect(file).returncode == 0
    expect_wrong(inspect(file, "--verify"), "b.bias", "element 3")
    with open(file, "r+b") as f:
        f.truncate(file.stat().st_size - 1)
    expect_wrong(inspect(file), "w.safetensors")


def test_what_is_not_there_or_unknown(tmp_path):
    expect_wrong(inspect(tmp_path / "no.h5"), "no.h5")
    expect_wrong(inspect(tmp_path), str(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    expect_wrong(inspect(tmp_path / "a.txt"), "a.txt")
    assert inspect().returncode == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a model, data, a configuration and the run directory of a short run."""
    import torch
    from diffusers import UNet2DConditionModel
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=4,
        attention_head_dim=2, norm_num_groups=4).save_pretrained(folder / "model")
    rng = np.random.default_rng(2)
    with h5py.File(folder / "a.h5", "w") as f:
        f.attrs.update({"format": "trireme-latents", "version": 1, "scaling_factor": 1.0})
        f["latents"] = rng.normal(size=(10, 4, 8, 8)).astype(np.float16)
        f["text/prompt_embeds"] = np.ones((1, 2, 4), np.float32)
    (folder / "c.toml").write_text(
        '[run]\ndir = "run"\nsteps = 4\n[model]\nweights = "model"\n[data]\ntrain = ["a.h5"]\n'
        "[batch]\nglobal = 4\n[lr_schedule]\nwarmup_steps = 1\n[checkpoint]\nevery_steps = 2\n"
        "[eval]\nevery_steps = 0\n[sample]\ncount = 0\n")
    done = subprocess.run([TRIREME, "train", "c.toml"], cwd=folder, capture_output=True, text=True,
                          timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return folder


def test_run_and_checkpoint(run):
    done = inspect(run / "run", "--verify")
    assert done.returncode == 0, done.stderr
    lines = (run / "run" / "metrics.jsonl").read_text().count("\n")
    for words in ["4 steps", "step-00000002", "step-00000004", "latest", f"{lines} lines"]:
        assert words in done.stdout, done.stdout
    done = inspect(run / "run" / "checkpoints" / "latest", "--verify")
    assert done.returncode == 0, done.stderr
    for words in ["checkpoint", "UNet2DConditionModel", "optimizer"]:
        assert words in done.stdout, done.stdout


def test_a_network_in_a_folder_of_its_own(run, tmp_path):
    """What train takes as weights and `export --format diffusers` writes, without a model_index.json."""
    folder = tmp_path / "exported"
    done = subprocess.run([TRIREME, "export", run / "run", "--format", "diffusers", "--out", folder], cwd=run,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (folder / "model_index.json").exists()
    done = inspect(folder, "--verify")
    assert done.returncode == 0, done.stderr
    for words in ["unet", "UNet2DConditionModel", "every tensor was read"]:
        assert words in done.stdout, done.stdout


def test_verify_finds_a_changed_byte_of_a_checkpoint(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run / "run", folder, symlinks=True)
    weights = folder / "checkpoints/step-00000002/unet/diffusion_pytorch_model.safetensors"
    change_byte(weights, weights.stat().st_size - 3)
    assert inspect(folder).returncode == 0
    expect_wrong(inspect(folder, "--verify"), "diffusion_pytorch_model.safetensors")
    expect_wrong(inspect(folder / "checkpoints/step-00000002", "--verify"),
                 "diffusion_pytorch_model.safetensors")
    (folder / "checkpoints/step-00000002/manifest.json").unlink()
    expect_wrong(inspect(folder / "checkpoints/step-00000002"), "manifest.json", "not whole")


def order(folder, *arguments):
    done = inspect("c.toml", "--order", *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return np.array([[int(word) for word in line.split("\t")] for line in done.stdout.splitlines()])


def test_order_visits_every_sample_once_an_epoch(run):
    rows = order(run, "1:25")  # 100 draws of 10 samples.
    assert rows.shape == (100, 5)
    assert rows[:, 0].tolist() == [1 + i // 4 for i in range(100)]
    assert rows[:, 1].tolist() == [i % 4 for i in range(100)]
    for epoch in range(10):
        assert sorted(rows[rows[:, 3] == epoch, 4]) == list(range(10))
    assert (rows[:10, 4] != rows[10:20, 4]).any()
    np.testing.assert_array_equal(order(run, "7:9"), rows[24:36])


def test_order_by_index_and_shards(run):
    rows = order(run, "1:5", "--set", "data.shuffle=false", "--set", "parallel.shards=2")
    assert rows[:, 4].tolist() == [i % 10 for i in range(20)]
    assert rows[:, 2].tolist() == [0, 0, 1, 1] * 5


@pytest.mark.parametrize("steps", ["0:3", "3:2", "x", "1", "1:", "1:2:3"])
def test_order_refuses_what_is_no_range(run, steps):
    assert inspect("c.toml", "--order", steps, folder=run).returncode == 2


def test_shipped_configurations_are_valid():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "configs")
    names = sorted(name for name in os.listdir(root) if name.endswith(".toml"))
    studies = [name for name in names if "\n[study]" in "\n" + open(os.path.join(root, name)).read()]
    names = [name for name in names if name not in studies]
    assert names and studies
    for name in names:
        done = inspect(os.path.join(root, name))
        assert done.returncode == 0, (name, done.stderr)
