"""What the program writes for TensorBoard, read back by the tensorboard package."""

import json
import subprocess

import pytest
import tiny_run
from tensorboard.backend.event_processing import event_accumulator, event_file_loader
from tensorboard.plugins.hparams import metadata as hparams_metadata


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard")
    model = tiny_run.write_model(folder / "model")
    dataset = tiny_run.write_dataset(folder / "data.h5")
    config = tiny_run.write_config(folder / "config.toml", model, dataset, folder / "run", run={"steps": 4},
                                   trace={"first_step": 2, "num_steps": 2})
    tiny_run.run(2, "train", config)
    return folder, config


def scalars(run_dir):
    accumulator = event_accumulator.EventAccumulator(str(run_dir / "tensorboard"), {event_accumulator.SCALARS: 0})
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def expected(run_dir, kind, name):
    return [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in tiny_run.metrics(run_dir, kind)]


def test_scalars_are_those_of_the_metrics(run):
    folder, _ = run
    found = scalars(folder / "run")
    for kind in ("train", "eval"):
        for name, value in tiny_run.metrics(folder / "run", kind)[-1].items():
            if isinstance(value, (int, float)) and name != "step":
                assert found[f"{kind}/{name}"] == expected(folder / "run", kind, name), name


def test_hyperparameters_are_the_configuration(run):
    folder, _ = run
    (file,) = (folder / "run" / "tensorboard").iterdir()
    for event in event_file_loader.EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            if value.tag == hparams_metadata.SESSION_START_INFO_TAG:
                info = hparams_metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
                assert info.hparams["optim.lr"].number_value == 1e-3
                assert info.hparams["batch.global"].number_value == 8
                assert info.hparams["optim.name"].string_value == "adamw"
                assert info.hparams["data.shuffle"].bool_value is True
                return
    pytest.fail("no hyperparameters in the file")


def test_a_resume_repeats_no_step_and_cuts_a_torn_record(run):
    folder, config = run
    run_dir = folder / "killed"
    tiny_run.run(1, "train", config, "--run-dir", run_dir)
    # As if it had been killed on its way from the checkpoint of step 2, in the middle of a record.
    (file,) = (run_dir / "tensorboard").iterdir()
    with open(file, "ab") as f:
        f.write(file.read_bytes()[:9])
    subprocess.run(["rm", "-r", run_dir / "checkpoints" / "step-00000004"], check=True)
    tiny_run.run(2, "train", config, "--run-dir", run_dir)
    found = scalars(run_dir)
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["eval/val_loss"]] == [0, 3, 4]
    assert found["train/loss"] == expected(run_dir, "train", "loss")
    assert [file] == list((run_dir / "tensorboard").iterdir())


def test_the_trace_holds_all_ranks_and_no_overlap(run):
    folder, _ = run
    events = json.loads((folder / "run" / "trace" / "steps-00000002-00000003.json").read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {e["pid"] for e in spans} == {0, 1}
    on_main = {e["name"] for e in spans if threads[e["pid"], e["tid"]] == "main thread"}
    assert {"forward", "backward", "optimizer", "communication"} <= on_main
    assert any(threads[e["pid"], e["tid"]] == "communication" and e["name"] == "all-reduce" for e in spans)
    ends = {}
    for e in sorted(spans, key=lambda e: e["ts"]):
        track = e["pid"], e["tid"]
        assert e["ts"] >= ends.get(track, 0) - 1e-6 and e["dur"] > 0, e
        ends[track] = e["ts"] + e["dur"]
