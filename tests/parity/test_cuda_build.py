"""The program built against CUDA LibTorch and NCCL starts and trains on a machine without a GPU, on its CPU."""

import pathlib
import subprocess

import pytest
from tiny_run import ENVIRONMENT, MPIRUN, metrics, run, write_config, write_dataset, write_model

CUDA = pathlib.Path(__file__).resolve().parents[2] / "build-cuda" / "trireme"


@pytest.fixture(autouse=True)
def built():
    if not CUDA.exists():
        pytest.skip(f"{CUDA.relative_to(CUDA.parents[1])} is not built: ./bootstrap test --with-cuda builds it")


def test_links_cuda_and_nccl():
    libraries = subprocess.run(["ldd", CUDA], capture_output=True, text=True, check=True).stdout
    for library in ("libnccl.so", "libcudart.so", "libtorch_cuda.so"):
        assert library in libraries and "not found" not in libraries, libraries


def test_trains_on_two_ranks_as_the_cpu_build_does(tmp_path):
    model, data = write_model(tmp_path), write_dataset(tmp_path / "train.h5")
    config = write_config(tmp_path / "c.toml", model, data, tmp_path / "cpu", run={"steps": 2})
    run(2, "train", config)
    command = [*MPIRUN, "-np", "2", str(CUDA), "train", str(config), "--run-dir", str(tmp_path / "cuda")]
    environment = dict(ENVIRONMENT, CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for here, there in zip(metrics(tmp_path / "cpu"), metrics(tmp_path / "cuda"), strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-5)


def test_nccl_without_a_gpu_is_refused_with_the_cure(tmp_path):
    model, data = write_model(tmp_path), write_dataset(tmp_path / "train.h5")
    config = write_config(tmp_path / "c.toml", model, data, tmp_path / "run", parallel={"backend": "nccl"})
    environment = dict(ENVIRONMENT, CUDA_VISIBLE_DEVICES="")
    done = subprocess.run([CUDA, "train", config], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "nccl" in done.stderr.lower(), done.stderr
