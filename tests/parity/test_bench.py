"""`trireme bench` beside its peers, one round: that each figure comes about, not how large it is."""

import json
import sys

import pytest
import tiny_run


@pytest.mark.parametrize("group, names, peers", [
    ("checkpoint", ["checkpoint"], [["torch.save and fsync"]]),
    ("loader", ["loader", "noise"], [["h5py"], ["torch.randn"]]),
    ("optimizer", ["alone/optimizer", "optimizer"],
     2 * [["torch::optim::AdamW", "torch::optim::AdamW, one tensor", "PyTorch, fused AdamW"]]),
])
def test_a_group_gives_figures_and_ratios(tmp_path, group, names, peers):
    file = tmp_path / "bench.json"
    done = tiny_run.run(0, "bench", group, "--rounds", 1, "--json", file, "--python", sys.executable,
                        "--folder", tmp_path / "work")
    results = json.loads(file.read_text())["results"]
    assert [result["name"] for result in results] == names, done.stderr
    assert [[peer["label"] for peer in result["peers"]] for result in results] == peers
    for result in results:
        assert result["title"] in done.stdout
        for figure in [result["seconds"], *(peer["ratio"] for peer in result["peers"])]:
            assert figure["median"] > 0


def test_an_unknown_group_names_those_there_are():
    refused = tiny_run.run(0, "bench", "speed", code=2)
    assert "no measurement 'speed'" in refused.stderr and "all_reduce" in refused.stderr


def test_a_python_that_does_not_run_is_a_usage_error_that_names_the_option(tmp_path):
    refused = tiny_run.run(0, "bench", "loader", "--python", "/nonexistent", "--folder", tmp_path / "work", code=2)
    assert "--python: '/nonexistent' does not run" in refused.stderr
    assert not (tmp_path / "work").exists()


def test_a_python_without_the_peers_packages_is_told_what_it_lacks(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -S \"$@\"\n")  # -S: without site-packages.
    python.chmod(0o755)
    refused = tiny_run.run(0, "bench", "loader", "--python", python, code=2)
    assert "lacks torch, diffusers, h5py" in refused.stderr
