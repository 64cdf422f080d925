"""Training on a GPU against the same training on the CPU. Skipped, saying so, without a GPU."""

import os

import pytest
import tiny_run
from tiny_run import metrics, run, write_config, write_dataset, write_model


def has_gpu():
    return os.path.exists("/dev/nvidia0") and "cuda" in os.environ.get("TRIREME_BUILD", "")


pytestmark = pytest.mark.skipif(not has_gpu(), reason="skipped: no GPU, or not the CUDA build")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder), write_dataset(folder / "train.h5")


def train(tmp_path, parts, name, monkeypatch, gpu, **tables):
    environment = dict(tiny_run.ENVIRONMENT, **({} if gpu else {"CUDA_VISIBLE_DEVICES": ""}))
    monkeypatch.setattr(tiny_run, "ENVIRONMENT", environment)
    config = write_config(tmp_path / f"{name}.toml", *parts, tmp_path / name, **tables)
    run(1, "train", config, timeout=300)
    return metrics(tmp_path / name)


@pytest.mark.parametrize("options,tolerance", [
    ({}, 1e-3), ({"shards": 4}, 1e-3), ({"precision": "bf16"}, 3e-2), ({"precision": "fp16"}, 1e-2),
    ({"memory_format": "channels_last"}, 1e-3), ({"activation_checkpointing": True}, 1e-3),
    ({"shard_optimizer": True}, 1e-3)])
def test_losses_follow_the_cpu(tmp_path, parts, monkeypatch, options, tolerance):
    cpu = train(tmp_path, parts, "cpu", monkeypatch, gpu=False)
    gpu = train(tmp_path, parts, "gpu", monkeypatch, gpu=True, parallel=options)
    assert [m["step"] for m in gpu] == [m["step"] for m in cpu]
    for a, b in zip(cpu, gpu):
        assert b["loss"] == pytest.approx(a["loss"], rel=tolerance)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=10 * tolerance)


def test_shards_give_the_same_bits_twice(tmp_path, parts, monkeypatch):
    first = train(tmp_path, parts, "first", monkeypatch, gpu=True, parallel={"shards": 4})
    again = train(tmp_path, parts, "again", monkeypatch, gpu=True, parallel={"shards": 2})
    third = train(tmp_path, parts, "third", monkeypatch, gpu=True, parallel={"shards": 4})
    assert [m["param_checksum"] for m in first] == [m["param_checksum"] for m in third]
    assert [m["param_checksum"] for m in first] != [m["param_checksum"] for m in again]
