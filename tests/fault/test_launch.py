"""trireme launch: what it plans, how it ends, what it passes on."""
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from tiny_run import TRIREME, metrics, wait_for, write_config, write_dataset, write_model


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder), write_dataset(folder / "train.h5")


@pytest.fixture()
def config(tmp_path, parts):
    return write_config(tmp_path / "config.toml", *parts, tmp_path / "run", run={"steps": 3},
                        eval={"every_steps": 0}, checkpoint={"every_steps": 0})


def run(*arguments, env=None, timeout=120):
    return subprocess.run([TRIREME, *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


def steps_in(folder):
    return [line["step"] for line in metrics(folder)]


def start_endless(config, setting="run.seed=1", **environment):
    """A launched run on two ranks that has done some steps."""
    command = [TRIREME, "launch", str(config), "-n", "2", "--set", "run.steps=1000000", "--set", setting]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                               env={**os.environ, **environment})
    file = config.parent / "run" / "metrics.jsonl"
    before = len(file.read_text().splitlines()) if file.exists() else 0

    def has_begun():
        assert process.poll() is None, process.stderr.read()
        return file.exists() and len(file.read_text().splitlines()) > before + 3

    wait_for(has_begun)
    return process


def one_paragraph(stderr):
    errors = [line for line in stderr.splitlines() if re.match(r"(\[rank \d+\] )?error:", line)]
    assert len(errors) == 1, stderr
    return errors[0]


def test_dry_run_prints_the_exact_command_line(config):
    result = run("launch", config, "-n", 2, "--dry-run", "--set", 'run.name=a "b"', "--fresh")
    assert result.returncode == 0, result.stderr
    words = subprocess.run(["bash", "-c", f'printf "%s\\n" {result.stdout.strip()}'], capture_output=True,
                           text=True).stdout.splitlines()
    assert words[0] == "mpirun"
    at = words.index("-np")
    assert words[at + 1] == "2"
    assert words[at + 2:] == [os.path.realpath(TRIREME), "train", str(config), "--set", 'run.name=a "b"', "--fresh"]
    assert ("--allow-run-as-root" in words) == (os.geteuid() == 0)


def test_ranks_are_launched_and_the_code_passes(config, tmp_path):
    result = run("launch", config, "-n", 2)
    assert result.returncode == 0, result.stderr
    assert steps_in(tmp_path / "run") == [1, 2, 3]
    assert "2 ranks" in result.stderr


def test_a_users_mistake_is_told_once_with_its_code(config):
    result = run("launch", config, "-n", 2, "--set", "optim.rate=3")
    assert result.returncode == 2
    assert "optim.rate" in one_paragraph(result.stderr)


def test_an_error_of_the_ranks_keeps_its_code(config, tmp_path):
    broken = write_dataset(tmp_path / "broken.h5")
    os.truncate(broken, 1000)
    result = run("launch", config, "-n", 2, "--set", f'data.train=["{broken}"]')
    assert result.returncode == 3, result.stderr
    assert "broken.h5" in one_paragraph(result.stderr)


def test_a_batch_that_the_ranks_do_not_divide_is_a_usage_error(config):
    result = run("launch", config, "-n", 3)  # The batch is 8.
    assert result.returncode == 2, result.stderr
    one_paragraph(result.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_a_checkpoint_and_the_next_launch_goes_on(config, tmp_path, number):
    process = start_endless(config)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    done = steps_in(tmp_path / "run")[-1]
    assert (tmp_path / "run" / "checkpoints" / f"step-{done:08d}").is_dir()
    process = start_endless(config)  # Goes on: the same configuration.
    process.send_signal(number)
    assert process.communicate(timeout=60) and process.returncode == 75
    steps = steps_in(tmp_path / "run")
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > done


def test_a_killed_rank_is_a_lost_rank(config, tmp_path):
    process = start_endless(config)
    ranks = [pid for pid in descendants(process.pid) if is_rank(pid)]
    assert len(ranks) == 2
    os.kill(ranks[-1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 4, stderr
    wait_for(lambda: not any(is_rank(pid) for pid in ranks), timeout=10)  # A zombie has no command line.


@pytest.mark.parametrize("backend", ["shm", "mpi"])
def test_a_hung_rank_is_named_after_the_deadline(config, backend):
    process = start_endless(config, f"parallel.backend={backend}", TRIREME_TIMEOUT_SECONDS="1")
    ranks = [pid for pid in descendants(process.pid) if is_rank(pid)]
    hung = next(pid for pid in ranks if b"OMPI_COMM_WORLD_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(hung, signal.SIGSTOP)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 4, stderr
    assert "ank 1" in one_paragraph(stderr)
    wait_for(lambda: not any(is_rank(pid) for pid in ranks), timeout=10)


def descendants(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found += [int(entry.name), *descendants(int(entry.name))]
    return found


def is_rank(pid):
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"trireme") and words[1:2] == [b"train"]


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"])
def test_processes_that_mpi_does_not_connect_are_refused(config, variable):
    result = run("train", config, env={variable: "2"})
    assert result.returncode == 2, result.stderr
    assert "--mpi=pmix" in one_paragraph(result.stderr)


def test_launch_is_not_for_mpirun(config):
    result = run("launch", config, "-n", 2, env={"OMPI_COMM_WORLD_SIZE": "2"})
    assert result.returncode == 2
    assert "mpirun" in one_paragraph(result.stderr)


def test_without_mpirun_the_error_says_what_to_install(config, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("launch", config, "-n", 2, env={"PATH": str(tmp_path / "empty")})
    assert result.returncode == 2
    assert "openmpi-bin" in one_paragraph(result.stderr)


def script_with_srun(config, tmp_path, srun_body):
    """The batch script, run with an srun and an scontrol that only write down what they are told."""
    result = run("launch", config, "--slurm", "--nodes", 2, "--gpus-per-node", 4, "--time", "1:00:00")
    assert result.returncode == 0, result.stderr
    script = tmp_path / "job.sh"
    script.write_text(result.stdout)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in {"srun": srun_body, "scontrol": f'echo "$@" >> {tmp_path}/scontrol.txt'}.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(stat.S_IRWXU)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    return ["bash", str(script)], environment


def test_the_batch_script_starts_the_ranks(config, tmp_path):
    command, environment = script_with_srun(config, tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/srun.txt; exit 3')
    assert subprocess.run(command, env=environment, timeout=60).returncode == 3
    words = (tmp_path / "srun.txt").read_text().splitlines()
    assert "--mpi=pmix" in words
    assert words[-3:] == [os.path.realpath(TRIREME), "train", str(config)]
    assert not (tmp_path / "scontrol.txt").exists()


def test_the_batch_script_requeues_a_stopped_job(config, tmp_path):
    body = f"trap 'exit 75' USR1; touch {tmp_path}/started; while :; do sleep 0.01; done"
    command, environment = script_with_srun(config, tmp_path, body)
    process = subprocess.Popen(command, env=environment)
    wait_for((tmp_path / "started").exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 75
    assert (tmp_path / "scontrol.txt").read_text().strip() == "requeue 77"
