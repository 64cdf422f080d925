"""With `shards` every rank count, back end and way to spread the optimizer gives the same bits; precision options
train as they should."""

import hashlib

import pytest
from tiny_run import metrics, run, weights_sha256, write_config, write_dataset, write_model

TIMED = ("step_seconds", "data_seconds", "comm_exposed_seconds", "images_per_second")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder), write_dataset(folder / "train.h5")


def without_times(lines, also=()):
    return [{k: v for k, v in line.items() if k not in TIMED + also} for line in lines]


def train(tmp_path, parts, name, ranks, sets=(), **tables):
    base = dict(run={"steps": 4}, eval={"every_steps": 2}, checkpoint={"every_steps": 0}, ema={"decay": 0.9},
                model={"dropout": 0.1})
    for table, keys in tables.items():
        base[table] = {**base.get(table, {}), **keys}
    config = write_config(tmp_path / f"{name}.toml", *parts, tmp_path / name, **base)
    run(ranks, "train", config, timeout=240)
    return tmp_path / name


def everything(run_dir):
    """Hashes of all that a run leaves, and its metrics."""
    checkpoint = run_dir / "checkpoints" / "latest"
    hashes = {str(file.relative_to(checkpoint)): hashlib.sha256(file.read_bytes()).hexdigest()
              for file in sorted(checkpoint.rglob("*.safetensors"))}
    assert "optimizer.safetensors" in hashes
    return hashes, without_times(metrics(run_dir)), metrics(run_dir, "eval")


def test_same_bits_at_1_2_4_8_ranks_sharded_or_not_over_shm_and_mpi(tmp_path, parts):
    whole = everything(train(tmp_path, parts, "whole", 1, parallel={"shards": 8}))
    assert all(len(line["param_checksum"]) == 16 and line["noise_scale"] != 0 for line in whole[1])
    cases = [(2, "mpi", True), (4, "shm", True), (4, "mpi", False), (8, "shm", False), (8, "mpi", True)]
    for ranks, backend, is_sharded in cases:
        name = f"r{ranks}-{backend}-{is_sharded}"
        other = everything(train(tmp_path, parts, name, ranks, parallel={
            "shards": 8, "backend": backend, "shard_optimizer": is_sharded}))
        assert other == whole, name


@pytest.mark.parametrize("tables", [
    dict(optim={"name": "sgd", "lr": 1e-2, "momentum": 0.9, "max_grad_value": 1e-3}),
    dict(optim={"name": "lion", "lr": 1e-4}, parallel={"precision": "bf16"}),
    dict(optim={"name": "lamb"}, batch={"micro": 1}),
    dict(optim={"name": "adafactor"}),
    dict(adapter={"type": "lora", "rank": 4, "dropout": 0.2}),
], ids=["sgd, bounded values", "lion, bf16", "lamb, accumulation", "adafactor", "lora, dropout"])
def test_same_bits_whatever_is_trained_and_how(tmp_path, parts, tables):
    """Beside AdamW in fp32 on one micro-batch a piece: 1 and 4 ranks."""
    tables = {**tables, "parallel": {"shards": 4, **tables.get("parallel", {})}, "run": {"steps": 3}}
    one, four = (everything(train(tmp_path, parts, f"r{ranks}", ranks, **tables)) for ranks in (1, 4))
    assert one == four


def test_a_sharded_optimizer_gives_the_results_of_the_whole_one(tmp_path, parts):
    whole = train(tmp_path, parts, "whole", 2)
    spread = train(tmp_path, parts, "spread", 2, parallel={"shard_optimizer": True})
    for a, b in zip(metrics(whole), metrics(spread)):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("name", ["lamb", "lars", "adafactor"])
def test_optimizers_that_need_whole_tensors_refuse_to_be_spread(tmp_path, parts, name):
    config = write_config(tmp_path / "c.toml", *parts, tmp_path / "run", optim={"name": name},
                          parallel={"shard_optimizer": True})
    refused = run(2, "train", config, code=2)
    assert "parallel.shard_optimizer" in refused.stderr and name in refused.stderr


def test_activation_checkpointing_changes_only_the_order_of_sums(tmp_path, parts):
    """What a block's input feeds is added up inside the block first, so gradients differ by rounding."""
    tables = dict(optim={"name": "sgd", "lr": 1e-2}, eval={"every_steps": 0})
    plain = train(tmp_path, parts, "plain", 1, **tables)
    again = train(tmp_path, parts, "again", 1, parallel={"activation_checkpointing": True}, **tables)
    for one, other in zip(metrics(plain), metrics(again), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-6)
    # It has bits of its own, which no number of ranks changes.
    sets = dict(parallel={"activation_checkpointing": True, "shards": 2}, **tables)
    assert weights_sha256(train(tmp_path, parts, "one", 1, **sets)) == weights_sha256(
        train(tmp_path, parts, "two", 2, **sets))


@pytest.mark.parametrize("options,tolerance,effect", [
    (dict(precision="bf16"), 0.03, 4e-4), (dict(precision="fp16"), 0.01, 5e-5),
    (dict(reduce_precision="bf16"), 0.01, 4e-5), (dict(reduce_precision="fp16", shard_optimizer=True), 0.01, 2e-6),
    (dict(memory_format="channels_last"), 1e-4, 1e-8)])
def test_precision_options_follow_fp32(tmp_path, parts, options, tolerance, effect):
    """And differ from it: `effect` is at most a tenth of what their rounding does to the gradient norm, whose parts' errors
    mostly cancel; an option that did nothing would leave every bit."""
    plain = metrics(train(tmp_path, parts, "plain", 2, model={"dropout": 0.0}))
    other = metrics(train(tmp_path, parts, "other", 2, model={"dropout": 0.0}, parallel=options))
    for a, b in zip(plain, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=tolerance)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=10 * tolerance)
        assert ("loss_scale" in b) == (options.get("precision") == "fp16")
    assert max(abs(b["grad_norm"] / a["grad_norm"] - 1) for a, b in zip(plain, other)) > effect
    if "reduce_precision" in options:  # What only travels in half precision leaves the first loss alone.
        assert plain[0]["loss"] == other[0]["loss"]


def test_channels_last_state_is_stored_in_the_parameters_order(tmp_path, parts):
    """A run resumed in the other memory order would be another run, so the file is compared directly."""
    from safetensors.numpy import load_file
    import numpy as np

    # SGD, since Adam divides tiny gradients by themselves and so enlarges their rounding.
    tables = dict(model={"dropout": 0.0}, optim={"name": "sgd", "lr": 1e-2})
    plain = train(tmp_path, parts, "plain", 1, **tables)
    last = train(tmp_path, parts, "last", 1, parallel={"memory_format": "channels_last"}, **tables)
    for file in ("optimizer.safetensors", "unet/diffusion_pytorch_model.safetensors", "ema/diffusion_pytorch_model.safetensors"):
        a, b = (load_file(r / "checkpoints/latest" / file) for r in (plain, last))
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-3 * max(1e-6, float(np.abs(a[key]).max())), err_msg=key)


def test_reduction_in_half_precision_is_refused_with_shards(tmp_path, parts):
    config = write_config(tmp_path / "c.toml", *parts, tmp_path / "run", parallel={"shards": 4, "reduce_precision": "bf16"})
    assert "reduce_precision" in run(2, "train", config, code=2).stderr


def test_the_noise_scale_needs_parts_of_a_batch(tmp_path, parts):
    whole = metrics(train(tmp_path, parts, "whole", 1))
    assert all(line["noise_scale"] is None for line in whole)
    by_micro = metrics(train(tmp_path, parts, "micro", 1, batch={"micro": 2}))
    by_rank = metrics(train(tmp_path, parts, "rank", 2))
    for line in by_micro + by_rank:
        assert line["grad_noise"] > 0 or line["grad_signal"] > 0
