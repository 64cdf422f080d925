"""`trireme train` at 1, 2 and 4 ranks against reference_train.py: losses, rates, norms, weights."""
import h5py
import numpy as np
import pytest
import tiny_run
import tomllib
from parity import reference_train
from safetensors.torch import load_file

STEPS = 10

CASES = {
    "epsilon": dict(
        batch={"global": 8},
        optim={"lr": 1e-3, "lr_base_batch": 16, "lr_scaling": "linear", "max_grad_norm": 0.5, "eps": 1e-3},
        lr_schedule={"name": "cosine", "warmup_steps": 3, "min_lr_ratio": 0.1}),
    "velocity_with_everything": dict(
        run={"seed": 2**40 + 7},
        data={"flip": 0.5, "caption_dropout": 0.3},
        batch={"global": 8, "micro": 2},
        objective={"prediction": "v_prediction", "snr_gamma": 5.0, "noise_offset": 0.1},
        noise={"schedule": "squaredcos_cap_v2", "timesteps": 500},
        optim={"lr": 5e-4, "lr_base_batch": 2, "lr_scaling": "sqrt", "weight_decay": 0.1, "betas": [0.8, 0.95],
               "max_grad_norm": 0.0},
        lr_schedule={"name": "linear", "warmup_steps": 2},
        ema={"decay": 0.9}),
    "growing_batch": dict(
        data={"repeats": [2, 1], "crop": 4, "flip": 0.5},
        batch={"global": 4, "grow_at": [10, 30], "grow_to": [8, 12]},
        objective={"loss": "huber", "huber_delta": 0.3, "timestep_sampling": "low_discrepancy",
                   "timestep_distribution": "logit_normal", "logit_mean": -0.5, "timestep_range": [0.1, 0.9]},
        noise={"trained_betas": [round(1e-4 + 1e-3 * i, 6) for i in range(50)]},
        optim={"lr": 1e-3, "lr_base_batch": 8, "lr_scaling": "sqrt", "max_grad_value": 0.01, "max_grad_norm": 0.0,
               "eps": 1e-3, "decay_norms_and_biases": False, "weight_decay": 1.0},
        lr_schedule={"name": "inverse_sqrt", "warmup_fraction": 0.25, "warmup_steps": None}),
    "clipped_by_value_and_norm": dict(
        batch={"global": 8},
        optim={"lr": 1e-3, "eps": 1e-3, "max_grad_value": 0.005, "max_grad_norm": 0.1},
        lr_schedule={"name": "constant", "warmup_steps": 0}),
    "epsilon_min_snr": dict(
        batch={"global": 4},
        objective={"snr_gamma": 1.5},
        noise={"schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        optim={"lr": 1e-3},
        lr_schedule={"name": "constant", "warmup_steps": 0}),
}


def write_moments(path, samples, text_width=24, seed=1):
    """A second file: posterior moments, one to three captions a sample, a shift."""
    rng = np.random.default_rng(seed)
    captions = np.full((samples, 3), -1, np.int64)
    for row in captions:
        count = rng.integers(0, 4)
        row[:count] = rng.integers(1, 9, count)
    with h5py.File(path, "w") as f:
        f.attrs.update({"format": "trireme-latents", "version": 1, "scaling_factor": 0.7, "shift_factor": 0.1})
        f["latents"] = rng.standard_normal((samples, 8, 8, 8)).astype(np.float32)
        f["latents"].attrs["kind"] = "moments"
        f["caption_index"] = captions
        f["text/prompt_embeds"] = rng.standard_normal((9, 5, text_width)).astype(np.float16)
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    model = tiny_run.write_model(folder / "model")
    return model, [tiny_run.write_dataset(folder / "a.h5", samples=13), write_moments(folder / "b.h5", 17)]


@pytest.fixture(scope="module", params=CASES)
def reference(request, inputs, tmp_path_factory):
    """A case's configuration and what the reference makes of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model, files = inputs
    tables = {k: dict(v) for k, v in CASES[request.param].items()}
    tables.setdefault("run", {})["steps"] = STEPS
    tables.setdefault("data", {}).update({"train": list(map(str, files)), "validation_fraction": None})
    tables |= {"eval": {"every_steps": 0}, "checkpoint": {"every_steps": 0}}
    config = tiny_run.write_config(folder / "config.toml", model, files[0], folder / "run", **tables)
    order = folder / "order.tsv"
    order.write_text(tiny_run.run(0, "inspect", config, "--order", f"1:{STEPS}").stdout)
    result = reference_train.train(tomllib.loads(config.read_text()), order, STEPS)
    return folder, config, result


def relative(ours, theirs):
    return abs(ours - theirs) / max(abs(theirs), 1e-12)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_losses_and_weights(reference, ranks):
    folder, config, (lines, weights, average) = reference
    run_dir = folder / f"run-{ranks}"
    changes = []
    if "micro" not in config.read_text() and "grow" not in config.read_text() and ranks < 4:
        changes = ["--set", "batch.micro=1"]  # Accumulation changes nothing either.
    tiny_run.run(ranks, "train", config, "--run-dir", run_dir, *changes)
    compare(run_dir, config, lines, weights, average)


def compare(run_dir, config, lines, weights, average):
    ours = tiny_run.metrics(run_dir)
    assert [line["step"] for line in ours] == [line["step"] for line in lines]
    for mine, theirs in zip(ours, lines):
        assert mine["samples"] == theirs["samples"]
        assert ("bounded_grad_norm" in mine) == ("bounded_grad_norm" in theirs)
        for key, tolerance in (("loss", 1e-5), ("lr", 1e-12), ("grad_norm", 1e-4), ("bounded_grad_norm", 1e-4)):
            if key not in theirs:
                continue
            error = relative(mine[key], theirs[key])
            assert error <= tolerance, f"step {mine['step']}, {key}: {mine[key]} for {theirs[key]} ({error:.1e})"
    compare_weights(run_dir / "checkpoints" / "latest" / "unet", weights)
    if "[ema]" in config.read_text():
        compare_weights(run_dir / "checkpoints" / "latest" / "ema", average)


@pytest.mark.parametrize("reference", ["clipped_by_value_and_norm"], indirect=True)
@pytest.mark.parametrize("ranks,options", [(2, ["shard_optimizer=true"]), (4, ["shard_optimizer=true", "shards=8"]),
                                           (2, ["shards=4"])])
def test_clipping_twice_where_ranks_hold_slices(reference, ranks, options):
    """The norm is that of what the first clipping leaves: both take part here, and either order of them would show."""
    folder, config, (lines, weights, average) = reference
    assert all(0.105 < line["bounded_grad_norm"] < 0.95 * line["grad_norm"] for line in lines), lines
    run_dir = folder / "-".join(["run", str(ranks), *options])
    tiny_run.run(ranks, "train", config, "--run-dir", run_dir, *(word for o in options for word in ("--set", f"parallel.{o}")))
    compare(run_dir, config, lines, weights, average)


def compare_weights(folder, theirs):
    ours = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert ours.keys() == theirs.keys()
    # AdamW moves an element by the sign of its gradient where that is tiny: a bound on each would be loose.
    difference = sum((ours[k] - v).square().sum().item() for k, v in theirs.items()) ** 0.5
    size = sum(v.square().sum().item() for v in theirs.values()) ** 0.5
    assert difference <= 5e-6 * size, f"{difference / size:.1e}"


def test_philox_of_the_reference():
    """The published known answers of the random streams hold for the reference as well."""
    assert [hex(w) for w in reference_train.philox([[0], [0], [0], [0]], (0, 0))[:, 0]] == [
        "0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    noise = reference_train.normals(42, reference_train.NOISE, 0, 7, 4)
    np.testing.assert_allclose(noise, [-0.74448484, 0.41399145, -0.46544737, 0.44521943], rtol=1e-7)
    assert int(reference_train.words(42, reference_train.TIMESTEP, 0, 7)[0]) * 1000 >> 32 == 768
