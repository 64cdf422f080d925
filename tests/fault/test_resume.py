"""A run that is stopped, killed or continued at another number of ranks loses nothing and repeats nothing."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess

import pytest
from tiny_run import (ENVIRONMENT, MPIRUN, TRIREME, metrics, run, wait_for, weights_sha256, write_config,
                      write_dataset, write_model)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder), write_dataset(folder / "train.h5")


def without_times(lines):
    timed = ("step_seconds", "data_seconds", "comm_exposed_seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def test_shards_give_the_same_bits_at_any_ranks_and_after_resumes(tmp_path, parts):
    tables = dict(parallel={"shards": 4}, ema={"decay": 0.9}, model={"dropout": 0.1},
                  data={"flip": 0.5, "caption_dropout": 0.2})
    whole = write_config(tmp_path / "whole.toml", *parts, tmp_path / "whole", **tables)
    run(1, "train", whole)
    for ranks in (2, 4):
        other = write_config(tmp_path / f"r{ranks}.toml", *parts, tmp_path / f"r{ranks}", **tables)
        run(ranks, "train", other)
        for part in ("unet", "ema"):
            assert weights_sha256(tmp_path / "whole", part=part) == weights_sha256(tmp_path / f"r{ranks}", part=part)
        assert without_times(metrics(tmp_path / "whole")) == without_times(metrics(tmp_path / f"r{ranks}"))
        assert metrics(tmp_path / "whole", "eval") == metrics(tmp_path / f"r{ranks}", "eval")

    # Stopped at step 2 on four ranks, at 4 on two, finished on one. The earlier stops are made by taking
    # the later checkpoints away, as a crash before their rename would.
    parted = tmp_path / "parted"
    config = write_config(tmp_path / "parted.toml", *parts, parted, **tables)
    for ranks, keep in ((4, 2), (2, 4), (1, 6)):
        run(ranks, "train", config)
        for step in range(keep + 1, 7):
            shutil.rmtree(parted / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    assert weights_sha256(tmp_path / "whole") == weights_sha256(parted)
    assert without_times(metrics(tmp_path / "whole")) == without_times(metrics(parted))
    assert [line["step"] for line in metrics(parted, "eval")] == [0, 3, 6]


def test_usr1_stops_after_a_checkpoint_with_code_75_and_the_run_goes_on(tmp_path, parts):
    run_dir = tmp_path / "run"
    config = write_config(tmp_path / "c.toml", *parts, run_dir, run={"steps": 100000}, eval={"every_steps": 0},
                          checkpoint={"every_steps": 0})
    command = [*MPIRUN, "-np", "2", TRIREME, "train", str(config)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(metrics(run_dir)) > 3)
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, errors
    stopped_at = metrics(run_dir)[-1]["step"]
    assert os.path.basename(os.path.realpath(run_dir / "checkpoints/latest")) == f"step-{stopped_at:08d}"
    longer = stopped_at + 2
    changed = run(1, "train", config, "--set", f"run.steps={longer}", code=2)  # Steps may not shrink.
    assert "run.steps" in changed.stderr


def deciding_run(folder, name, parts):
    """Evaluates after every step, and stops early after the 60th: nothing improves by so much."""
    return write_config(folder / f"{name}.toml", *parts, folder / name, run={"name": "deciding", "steps": 1000},
                        eval={"every_steps": 1}, checkpoint={"every_steps": 0, "best": "saved"}, parallel={"shards": 2},
                        early_stopping={"patience": 60, "min_delta": 1e9})


def test_a_stop_leaves_its_evaluation_to_the_next_start(tmp_path, parts):
    """The checkpoint comes first; what was evaluated and decided is in the end that of a run never stopped."""
    run(2, "train", deciding_run(tmp_path, "whole", parts))
    config, run_dir = deciding_run(tmp_path, "parted", parts), tmp_path / "parted"
    for stops in range(2):
        process = subprocess.Popen([*MPIRUN, "-np", "2", TRIREME, "train", str(config)], env=ENVIRONMENT)
        before = len(metrics(run_dir)) if stops else 0
        wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(metrics(run_dir)) > before + 3)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == 75
        assert metrics(run_dir, "eval")[-1]["step"] == metrics(run_dir)[-1]["step"] - 1
    run(2, "train", config)
    assert [line["step"] for line in metrics(run_dir, "eval")] == list(range(61))
    assert metrics(run_dir, "eval") == metrics(tmp_path / "whole", "eval")
    assert without_times(metrics(run_dir)) == without_times(metrics(tmp_path / "whole"))
    for link in ("latest", "best"):
        assert weights_sha256(run_dir, link) == weights_sha256(tmp_path / "whole", link)
    events = [[line["step"] for line in metrics(folder, "event") if line["what"] == "early_stop"]
              for folder in (run_dir, tmp_path / "whole")]
    assert events == [[60], [60]]


def stop_in_second_pass(config):
    """Stops one rank when its progress line begins to count validation batches for the second time."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(TRIREME, [TRIREME, "train", str(config)], ENVIRONMENT)
    shown, counts = b"", []
    while select.select([terminal], [], [], 60)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # It has ended.
            break
        counts = [int(number) for number in re.findall(rb"(\d+) of \d+ validation batches", shown)]
        if counts != sorted(counts):
            os.kill(process, signal.SIGUSR1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75, shown.decode()
    assert counts != sorted(counts), shown.decode()


def test_a_stop_does_not_wait_for_the_end_of_an_evaluation(tmp_path, parts):
    """The next start begins it again, and what comes of it is that of a run never stopped."""

    def config_of(name):
        return write_config(tmp_path / f"{name}.toml", *parts, tmp_path / name, run={"name": "long", "steps": 4},
                            data={"validation_fraction": 0.5}, eval={"every_steps": 2, "timesteps": 100, "overfit_gap": False},
                            checkpoint={"every_steps": 0, "best": "saved"}, parallel={"shards": 2}, ema={"decay": 0.5})

    def stop_when(condition):
        process = subprocess.Popen([*MPIRUN, "-np", "2", TRIREME, "train", str(config)], env=ENVIRONMENT)
        wait_for(condition)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == 75

    config, run_dir = config_of("parted"), tmp_path / "parted"
    log = run_dir / "log.txt"
    stop_when(lambda: log.exists() and "plan " in log.read_text())  # In that before the first step.
    assert not list((run_dir / "checkpoints").glob("step-*")) and metrics(run_dir, "eval") == []
    stop_when(lambda: metrics(run_dir) and metrics(run_dir)[-1]["step"] == 2)
    assert [line["step"] for line in metrics(run_dir, "eval")] == [0]
    stop_in_second_pass(config)  # The average's, with its weights in place.
    assert [line["step"] for line in metrics(run_dir, "eval")] == [0]
    run(2, "train", config)
    run(2, "train", config_of("whole"))
    for part in ("unet", "ema"):
        assert weights_sha256(run_dir, part=part) == weights_sha256(tmp_path / "whole", part=part)
    assert without_times(metrics(run_dir)) == without_times(metrics(tmp_path / "whole"))
    assert metrics(run_dir, "eval") == metrics(tmp_path / "whole", "eval")


def test_another_configuration_is_refused_and_fresh_starts_over(tmp_path, parts):
    run_dir = tmp_path / "run"
    config = write_config(tmp_path / "c.toml", *parts, run_dir)
    run(1, "train", config)
    refused = run(2, "train", config, "--set", "optim.lr=5e-4", code=2)
    assert "optim.lr" in refused.stderr and "--fresh" in refused.stderr
    run(1, "train", config, "--set", "run.name=another")  # Does not touch the trajectory.
    grown = run(1, "train", config, "--set", "run.steps=8")
    assert [line["step"] for line in metrics(run_dir)] == list(range(1, 9)), grown.stderr
    run(1, "train", config, "--set", "optim.lr=5e-4", "--fresh")
    assert [line["step"] for line in metrics(run_dir)] == list(range(1, 7))


def test_a_held_run_directory_names_its_holder(tmp_path, parts):
    run_dir = tmp_path / "run"
    config = write_config(tmp_path / "c.toml", *parts, run_dir, run={"steps": 100000}, eval={"every_steps": 0})
    holder = subprocess.Popen([TRIREME, "train", str(config)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (run_dir / "metrics.jsonl").exists())
        refused = run(0, "train", config, code=2)
        assert str(holder.pid) in refused.stderr
    finally:
        holder.kill()
        holder.wait()
