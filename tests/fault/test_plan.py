"""What `plan` makes of its options and of measurements: exit codes, and where a calibration's words and figures come from."""

import json
from pathlib import Path

import pytest

import tiny_run

CONFIGS = Path(__file__).parent.parent / "study" / "configs"
# 4 x 8 B200 over EFA, nccl-tests; of 16 GiB 382 GB/s were measured.
EFA = "bytes,bus_gbps,ranks\n1048576,5.4,32\n67108864,157.0,32\n1073741824,362.0,32\n"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(f'[run]\nsteps = 10\n[model]\nconfig = "{CONFIGS}/sd2.json"\n[data]\ntrain = ["absent.h5"]\n'
                    "[batch]\nglobal = 64\n")
    return file


def rows(config, *words, ranks="8"):
    done = tiny_run.run(0, "plan", config, "--ranks", ranks, "--json", *words, code=0)
    return json.loads(done.stdout)["rows"]


@pytest.mark.parametrize("words,told", [
    (["--e-min", "5"], "--noise-scale"), (["--noise-scale", "nan"], "not a number"), (["--text-tokens", "-5"], "-5"),
    (["--price", "-1"], "-1"), (["--price", "nan"], "not a number"), (["--samples", "nan"], "not a number")])
def test_options_out_of_range_are_usage_errors(config, words, told):
    assert told in tiny_run.run(0, "plan", config, *words, code=2).stderr


@pytest.mark.parametrize("text,told", [
    ("bytes,bus_gbps\n", "no measurement"), ("bytes,bus_gbps\n1e6,5\n", "one size"),
    ('{"ranks": 2, "results": []}', "no measurement"), ('{"ranks": 3000000000000, "results": []}', "3000000000000")])
def test_a_file_that_calibrates_nothing_is_an_input_error(config, tmp_path, text, told):
    file = tmp_path / "measured"
    file.write_text(text)
    assert told in tiny_run.run(0, "plan", config, "--calibrate", file, code=3).stderr


def test_all_reduces_between_nodes_calibrate_the_network_alone(config, tmp_path):
    file = tmp_path / "efa.csv"
    file.write_text(EFA)
    words = ["--gpu-type", "b200", "--network", "efa-400g"]
    preset = rows(config, *words, ranks="8,32")
    node, nodes = rows(config, *words, "--calibrate", file, ranks="8,32")
    assert node == preset[0]
    assert nodes["all_reduce_bus_gbps"] == pytest.approx(382, rel=0.05)
    table = tiny_run.run(0, "plan", config, *words, "--calibrate", file, code=0).stdout
    assert "calibrated from 3 all-reduces of 32 ranks" in table
    assert "a preset for b200" in table
    assert "links of a node" not in table


def test_steps_calibrate_the_step_model(config, tmp_path):
    file = tmp_path / "steps.csv"
    file.write_text("ranks,samples_per_rank,images_per_second\n8,8,800\n8,32,1099\n")
    words = ["--calibrate", file, "--set", "parallel.precision=bf16"]
    assert "calibrated from 2 steps" in tiny_run.run(0, "plan", config, *words, code=0).stdout
    assert rows(config, *words)[0]["images_per_second"] == pytest.approx(800, rel=0.01)


@pytest.mark.parametrize("ranks", [3, 128])
def test_ranks_that_launch_refuses_are_not_possible(config, ranks):
    row = rows(config, ranks=str(ranks))[0]
    assert not row["possible"]
    assert "batch.global = 64 cannot be divided by the number of ranks" in row["reason"]


@pytest.mark.parametrize("key,value,faster", [
    ("parallel.precision", "bf16", True), ("parallel.activation_checkpointing", "true", False),
    ("batch.micro", "1", False), ("parallel.reduce_precision", "bf16", True)])
def test_keys_of_the_config_decide_the_step(config, key, value, faster):
    # Two GPUs behind a slow network: gradients are not hidden.
    words = ["--gpus-per-node", "1", "--network", "ethernet-10g"]
    before = rows(config, *words, ranks="2")[0]["step_seconds"]
    after = rows(config, *words, "--set", f"{key}={value}", ranks="2")[0]["step_seconds"]
    assert (after < before) == faster and after != before
