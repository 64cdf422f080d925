"""What the program writes for TensorBoard, read back by the tensorboard package."""

import io
import json
import socket
import subprocess

import pytest
import tiny_run
import trace_rules
from PIL import Image
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, event_accumulator, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
from test_checkpoint_verbs import write_pipeline


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard")
    model = write_pipeline(folder / "model")
    dataset = tiny_run.write_dataset(folder / "data.h5")
    config = tiny_run.write_config(folder / "config.toml", model, dataset, folder / "run", run={"steps": 4},
                                   sample={"count": 3, "steps": 2}, trace={"first_step": 2, "num_steps": 2})
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


def test_pictures_are_those_of_the_samples(run):
    folder, _ = run
    accumulator = event_accumulator.EventAccumulator(str(folder / "run" / "tensorboard"), {event_accumulator.IMAGES: 0})
    accumulator.Reload()
    assert accumulator.Tags()["images"] == ["samples"]
    events = accumulator.Images("samples")
    assert [event.step for event in events] == [0, 3, 4]
    for event in events:
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        assert picture.format == "PNG" and picture.mode == "RGB"
        assert picture.size == (event.width, event.height) == (2 * 16 + 2, 2 * 16 + 2)  # Three of 16 x 16 in a grid.
        drawn = Image.open(folder / "run" / "samples" / f"step-{event.step:08}.png")
        assert picture.tobytes() == drawn.tobytes() and len(picture.getcolors(1 << 16)) > 10


def test_hyperparameters_are_the_configuration(run):
    """As the HParams page asks for them."""
    folder, _ = run
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder / "run"))
    multiplexer.Reload()
    board = base_plugin.TBContext(data_provider=data_provider.MultiplexerDataProvider(multiplexer, str(folder)))
    statuses = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING, api_pb2.STATUS_SUCCESS]
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, slice_size=10)
    (group,) = list_session_groups.Handler(context.RequestContext(), backend_context.Context(board), "0",
                                           request).run().session_groups
    assert group.hparams["optim.lr"].number_value == 1e-3
    assert group.hparams["batch.global"].number_value == 8
    assert group.hparams["optim.name"].string_value == "adamw"
    assert group.hparams["data.shuffle"].bool_value is True
    losses = {value.name.tag: value.value for value in group.metric_values}
    assert losses["eval/val_loss"] == pytest.approx(tiny_run.metrics(folder / "run", "eval")[-1]["val_loss"], rel=1e-6)


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


def test_the_trace_keeps_the_rules_of_its_format(run):
    folder, _ = run
    text = (folder / "run" / "trace" / "steps-00000002-00000003.json").read_text()
    tracks, threads, processes = trace_rules.read_trace(text)
    host = socket.gethostname()
    assert processes == {0: f"rank 0 on {host}", 1: f"rank 1 on {host}"}  # All ranks in one file.
    steps = tiny_run.metrics(folder / "run", "train")[1:3]
    for rank in processes:
        named = {threads[track]: spans for track, spans in tracks.items() if track[0] == rank}
        names = [span["name"] for span in named["main thread"]]
        assert {"forward", "backward", "optimizer", "communication"} <= set(names)
        assert names.count("forward") == 2
        assert any(span["name"] == "all-reduce" for span in named["communication"])
        # Microseconds: the two steps took as long as the metrics say, the evaluation of step 3 included.
        last = max(span["ts"] + span["dur"] for span in named["main thread"])
        evaluated = sum(span["dur"] for span in named["main thread"] if span["name"] in ("evaluation", "checkpoint"))
        assert last - evaluated == pytest.approx(1e6 * sum(step["step_seconds"] for step in steps), rel=0.5)
    starts = {rank: min(span["ts"] for track, spans in tracks.items() if track[0] == rank for span in spans)
              for rank in processes}
    assert abs(starts[0] - starts[1]) < 1e5, "ranks have one time"


@pytest.mark.parametrize("spoil", [
    lambda events: events[-1].update(ts=-1.0), lambda events: events[-1].update(ts="3"),
    lambda events: events[-1].pop("dur"), lambda events: events[-1].update(tid=99), lambda events: events.pop(0),
    lambda events: events.append(dict(events[-1], ts=events[-1]["ts"] + events[-1]["dur"] / 2)),
    lambda events: events.append(events[0]), lambda events: [e.update(tid=e["tid"] % 1000) for e in events], lambda events: events[-1].update(dur=float("nan")),
])
def test_a_trace_that_breaks_them_is_noticed(run, spoil):
    folder, _ = run
    trace = json.loads((folder / "run" / "trace" / "steps-00000002-00000003.json").read_text())
    spoil(trace["traceEvents"])
    with pytest.raises((AssertionError, KeyError)):
        trace_rules.read_trace(json.dumps(trace))
