"""`trireme bench` beside its peers, one round: that each figure comes about, not how large it is."""

import json
import sys

import pytest
import tiny_run


@pytest.mark.parametrize("group, names, peers", [
    ("checkpoint", ["checkpoint"], [["torch.save and fsync"]]),
    ("loader", ["loader", "noise"], [["h5py"], ["torch.randn"]]),
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
