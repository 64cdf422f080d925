"""trireme launch: what it plans, how it ends, what it passes on."""
import fcntl
import json
import os
import re
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from tiny_run import MPIRUN, TRIREME, metrics, wait_for, write_config, write_dataset, write_model


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


def start_endless(config, setting="run.seed=1", options=(), **environment):
    """A launched run on two ranks that has done some steps."""
    command = [TRIREME, "launch", str(config), "-n", "2", "--set", "run.steps=1000000", "--set", setting, *options]
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


def ranks_of(process):
    """Process numbers of the launched ranks, by rank."""
    pids = [pid for pid in descendants(process.pid) if is_rank(pid)]
    return sorted(pids, key=lambda pid: int(environment_of(pid)["OMPI_COMM_WORLD_RANK"]))


def environment_of(pid):
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if b"=" in entry)


def test_signals_in_any_number_and_order_stop_once(config, tmp_path):
    process = start_endless(config)
    for number in [signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP]:
        process.send_signal(number)
    for pid in ranks_of(process):  # As Slurm does it: every process of the job.
        os.kill(pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert stderr.count("with a checkpoint") == 1


def test_sigterm_at_mpirun_itself_leaves_time_for_the_checkpoint(config, tmp_path):
    process = start_endless(config)
    mpirun = next(pid for pid in descendants(process.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "mpirun")
    os.kill(mpirun, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    done = steps_in(tmp_path / "run")[-1]
    assert (tmp_path / "run" / "checkpoints" / f"step-{done:08d}").is_dir()


def last_record(run_dir):
    return json.loads((run_dir / "provenance.jsonl").read_text().splitlines()[-1])


def has_taken_term(pid):
    """No SIGTERM waits for `pid`."""
    pending = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return int(pending, 16) >> (signal.SIGTERM - 1) & 1 == 0


# mpirun sends SIGTERM on after its timeout, and at a second one within five seconds it ends itself, at once.
@pytest.mark.parametrize("number,count,code", [(signal.SIGUSR1, 2, 75), (signal.SIGTERM, 1, 1), (signal.SIGTERM, 2, 1)])
def test_plain_mpirun_stops_after_a_checkpoint(config, tmp_path, number, count, code):
    process = subprocess.Popen([*MPIRUN, "--mca", "odls_base_sigkill_timeout", "5", "-np", "2", TRIREME, "train", str(config),
                                "--set", "run.steps=1000000"], stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists() and len(steps_in(tmp_path / "run")) > 3)
    ranks = ranks_of(process)
    for _ in range(count):
        process.send_signal(number)
        wait_for(lambda: has_taken_term(process.pid))
    assert process.wait(timeout=60) == code
    wait_for(lambda: not any(is_rank(pid) for pid in ranks))
    done = steps_in(tmp_path / "run")[-1]
    assert (tmp_path / "run" / "checkpoints" / f"step-{done:08d}").is_dir()
    end = last_record(tmp_path / "run")
    assert end["kind"] == "end" and end["exit_code"] == 75


def kill_all(process):
    """The ranks first: they have process groups of their own."""
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def never(condition, seconds):
    """A bound on what cannot be waited for: mpirun ends the ranks that are left within two seconds."""
    try:
        wait_for(condition, timeout=seconds)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("setting,code,file,text", [("run.steps=1000000", 75, "log.txt", "with a checkpoint"),
                                                    ("optim.lr=1e38", 5, "metrics.jsonl", '"diverged"')])
def test_ranks_wait_for_the_last_words_of_rank_0(config, tmp_path, setting, code, file, text):
    """Its record of the end is held up; ranks that ended meanwhile would have mpirun end it."""
    record, pipe, start = tmp_path / "run" / "provenance.jsonl", tmp_path / "pipe", tmp_path / "start"
    record.parent.mkdir()
    os.mkfifo(pipe)
    os.link(pipe, record)
    process = subprocess.Popen([*MPIRUN, "-np", "2", TRIREME, "train", str(config), "--set", setting],
                               stderr=subprocess.PIPE, text=True)
    try:
        start.write_text(pipe.read_text())
        ranks = ranks_of(process)
        if code == 75:
            wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists() and len(steps_in(tmp_path / "run")) > 3)
            process.send_signal(signal.SIGUSR1)
        wait_for(lambda: (tmp_path / "run" / file).exists() and text in (tmp_path / "run" / file).read_text())
        assert never(lambda: not all(is_rank(pid) for pid in ranks), seconds=3)
        os.replace(start, record)  # What is opened already is the pipe.
        assert json.loads(pipe.read_text())["exit_code"] == code
        _, stderr = process.communicate(timeout=60)
    finally:
        kill_all(process)
    assert process.returncode == code, stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_the_error_of_one_rank_is_told_before_any_ends(config, tmp_path):
    """Rank 0 has the error and cannot print it until somebody reads."""
    pipe = tmp_path / "stderr"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    filler = b"." * fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    os.write(reader, filler)
    train = ["train", str(config), "--quiet", "--set", 'data.train=["missing.h5"]']
    talks = ["sh", "-c", f'exec "$0" "$@" 2> {pipe}', TRIREME, *train]
    process = subprocess.Popen([*MPIRUN, "-np", "1", *talks, ":", "-np", "1", TRIREME, *train], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(ranks_of(process)) == 2)
        ranks = ranks_of(process)
        assert never(lambda: not all(is_rank(pid) for pid in ranks), seconds=5)
        assert os.read(reader, len(filler)) == filler
        assert process.wait(timeout=60) == 3
        assert "missing.h5" in one_paragraph(os.read(reader, 4096).decode())
    finally:
        kill_all(process)
        os.close(reader)


def test_a_second_interrupt_ends_at_once(config):
    process = start_endless(config)
    ranks = ranks_of(process)
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)  # They will not get to their checkpoint.
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "Stopping" in os.read(process.stderr.fileno(), 65536).decode())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    for pid in ranks:
        if is_rank(pid):
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not any(is_rank(pid) for pid in ranks), timeout=10)


def test_a_lost_rank_is_restarted_in_place_and_the_run_goes_on(config, tmp_path):
    process = start_endless(config, "checkpoint.every_steps=2", options=["--restarts", "1"])
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "latest").exists())
    first = ranks_of(process)
    os.kill(first[1], signal.SIGKILL)
    wait_for(lambda: len(ranks_of(process)) == 2 and not set(first) & set(ranks_of(process)))
    before = len(steps_in(tmp_path / "run"))
    wait_for(lambda: len(steps_in(tmp_path / "run")) > before + 3)
    os.kill(ranks_of(process)[0], signal.SIGKILL)  # And now it is enough.
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 4, stderr
    assert stderr.count("Restart 1 of 1") == 1
    one_paragraph(stderr)
    steps = steps_in(tmp_path / "run")
    assert steps == list(range(1, len(steps) + 1))


def test_ranks_that_stop_by_the_clock_are_restarted(config, tmp_path):
    result = run("launch", config, "-n", 2, "--restarts", 2, "--set", "run.max_hours=1e-9")
    assert result.returncode == 75, result.stderr
    assert "Restart 2 of 2" in result.stderr
    assert "run.max_hours" in result.stderr


def test_max_hours_ends_after_a_checkpoint(config, tmp_path):
    result = run("launch", config, "-n", 2, "--set", "run.steps=1000000", "--set", f"run.max_hours={3 / 3600}")
    assert result.returncode == 75, result.stderr
    done = steps_in(tmp_path / "run")[-1]
    assert (tmp_path / "run" / "checkpoints" / f"step-{done:08d}").is_dir()


def test_each_rank_has_a_log_and_the_first_failure_comes_last_and_once(config, tmp_path):
    broken = write_dataset(tmp_path / "broken.h5")
    os.truncate(broken, 1000)
    logs = tmp_path / "logs"
    result = run("launch", config, "-n", 2, "--set", f'data.train=["{broken}"]', "--rank-output", logs)
    assert result.returncode == 3, result.stderr
    assert "broken.h5" in one_paragraph(result.stderr)
    assert result.stderr.strip().splitlines()[-1] == one_paragraph(result.stderr)
    assert any("broken.h5" in file.read_text() for file in logs.glob("rank-*.log"))


def test_rank_output_of_a_good_run_is_beside_it_and_on_the_terminal(config, tmp_path):
    result = run("launch", config, "-n", 2, "--rank-output")
    assert result.returncode == 0, result.stderr
    log = (tmp_path / "run" / "ranks" / "rank-00000.log").read_text()
    line = next(line for line in log.splitlines() if "as given" in line)
    assert line in result.stderr and "<stderr>" not in result.stderr


def test_ranks_get_an_allow_list_of_the_environment(config):
    process = start_endless(config, options=["--env", "MY_SETTING"], MY_SETTING="1", SECRET_TOKEN="x", NCCL_DEBUG="WARN")
    environment = environment_of(ranks_of(process)[0])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert environment["MY_SETTING"] == "1" and environment["NCCL_DEBUG"] == "WARN"
    assert "SECRET_TOKEN" not in environment


def test_hosts_come_from_a_list_or_a_file(config, tmp_path):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("node1 slots=2\nnode2:2\n")
    for words in [["--hosts", "node1:2,node2:2"], ["--hostfile", hostfile]]:
        result = run("launch", config, "--dry-run", *words, env={"NCCL_DEBUG": "INFO"})
        assert result.returncode == 0, result.stderr
        assert "--host node1:2,node2:2" in result.stdout and "-np 4" in result.stdout
        assert "-x NCCL_DEBUG" in result.stdout
    assert run("launch", config, "--dry-run", "--hostfile", tmp_path / "none").returncode == 3


def test_a_run_is_started_again_by_its_own_config(config, tmp_path):
    """From anywhere, with the same ranks; its provenance tells what it was."""
    assert run("launch", config, "-n", 2).returncode == 0
    start = next(map(json.loads, (tmp_path / "run" / "provenance.jsonl").read_text().splitlines()))
    assert start["num_ranks"] == 2 and start["command"][1] == "train"
    assert start["working_directory"] == os.getcwd()
    assert start["build"]["version"] and start["build"]["commit"] and start["build"]["libtorch"]
    assert start["hosts"][0]["host"] == socket.gethostname() and len(start["hosts"][0]["ranks"]) == 2
    assert "OMP_NUM_THREADS" in start["environment"]
    again = subprocess.run([os.path.realpath(TRIREME), "launch", str(tmp_path / "run" / "config.toml"), "--fresh"],
                           cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    lines = list(map(json.loads, (tmp_path / "run" / "provenance.jsonl").read_text().splitlines()))
    assert [line["kind"] for line in lines] == ["start", "end"]  # --fresh began anew.
    assert lines[0]["num_ranks"] == 2 and lines[0]["config_sha256"] == start["config_sha256"]
    assert lines[1]["exit_code"] == 0
    assert steps_in(tmp_path / "run") == [1, 2, 3]


def test_the_version_tells_what_it_was_built_from():
    lines = run("--version").stdout.splitlines()
    assert re.fullmatch(r"trireme \d+\.\d+\.\d+", lines[0])
    facts = dict(line.split(None, 1) for line in lines[1:])
    assert set(facts) == {"commit", "build", "compiler", "libtorch", "cuda", "nccl", "mpi", "hdf5"}


def test_completion_offers_verbs_options_and_keys():
    script = f"source <({TRIREME} completion bash); "
    ask = "COMP_WORDS=({0}); COMP_CWORD={1}; _trireme 2>/dev/null; echo ${{COMPREPLY[*]}}"
    for words, at, expected in [("trireme la", 1, "launch"), ("trireme launch --dry", 2, "--dry-run"),
                                ("trireme train --set optim.weight", 3, "optim.weight_decay=")]:
        result = subprocess.run(["bash", "-c", script + ask.format(words, at)], capture_output=True, text=True)
        assert result.stdout.split() == [expected], result.stderr


def script_with_srun(config, tmp_path, srun_body, state="RUNNING"):
    """The batch script, run with an srun and an scontrol that only write down what they are told."""
    result = run("launch", config, "--slurm", "--nodes", 2, "--gpus-per-node", 4, "--time", "1:00:00")
    assert result.returncode == 0, result.stderr
    script = tmp_path / "job.sh"
    script.write_text(result.stdout)
    tools = tmp_path / "tools"
    tools.mkdir()
    scontrol = f'[ "$1" = show ] && echo "JobId=77 JobState={state} X=1" || echo "$@" >> {tmp_path}/scontrol.txt'
    for name, body in {"srun": srun_body, "scontrol": scontrol}.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(stat.S_IRWXU)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    return ["bash", str(script)], environment


def test_the_batch_script_starts_the_ranks(config, tmp_path):
    command, environment = script_with_srun(config, tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/srun.txt; exit 3')
    assert subprocess.run(command, env=environment, timeout=60).returncode == 3
    words = (tmp_path / "srun.txt").read_text().splitlines()
    assert "--mpi=pmix" in words and "--gpu-bind=none" in words
    assert words[-3:] == [os.path.realpath(TRIREME), "train", str(config)]
    assert not (tmp_path / "scontrol.txt").exists()


WAITS_FOR_USR1 = "trap 'exit 75' USR1; touch {0}/started; while :; do sleep 0.01; done"


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED", "PENDING"])
def test_the_batch_script_requeues_a_stopped_job_that_still_runs(config, tmp_path, state):
    command, environment = script_with_srun(config, tmp_path, WAITS_FOR_USR1.format(tmp_path), state)
    process = subprocess.Popen(command, env=environment)
    wait_for((tmp_path / "started").exists)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    asked = (tmp_path / "scontrol.txt").read_text().strip() if (tmp_path / "scontrol.txt").exists() else ""
    assert asked == ("requeue 77" if state == "RUNNING" else "")


def test_the_batch_script_does_not_requeue_for_ever(config, tmp_path):
    (tmp_path / "run").mkdir()
    command, environment = script_with_srun(config, tmp_path, "exit 75")
    for _ in range(4):
        assert subprocess.run(command, env=environment, timeout=60).returncode == 75
    assert (tmp_path / "scontrol.txt").read_text().split() == ["requeue", "77"] * 2
    (tmp_path / "run" / "checkpoints").mkdir()
    new = f"ln -sfn step-$RANDOM {tmp_path}/run/checkpoints/latest; exit 75"
    (tmp_path / "tools" / "srun").write_text(f"#!/bin/bash\n{new}\n")
    assert subprocess.run(command, env=environment, timeout=60).returncode == 75
    assert (tmp_path / "scontrol.txt").read_text().split() == ["requeue", "77"] * 3


def test_doctor_reports_on_ranks_and_ends_with_a_code(tmp_path):
    result = run("doctor", "--json", "--dir", tmp_path)
    report = json.loads(result.stdout)
    checks = {check["check"]: check for check in report["checks"]}
    for name in ["compilers", "LibTorch", "MPI", "PMIx", "MPI threads", "HDF5", "Slurm", "open files", "locked memory",
                 "/dev/shm", "binding", "clocks", "write", "rename", "file locks", "shared files", "all-reduce"]:
        assert checks[name]["status"] in ("OK", "WARN"), checks[name]
        assert checks[name]["status"] == "OK" or checks[name]["cure"]
    assert len(report["hosts"]) >= 2 and result.returncode == 0
    assert not list(tmp_path.iterdir())


def test_doctor_names_what_is_broken_and_the_cure(tmp_path):
    result = run("doctor", "--dir", tmp_path / "missing")
    assert result.returncode == 1, result.stdout
    assert re.search(r"FAIL +write", result.stdout) and "--dir" in result.stdout
    (tmp_path / "empty").mkdir()
    result = run("doctor", env={"PATH": str(tmp_path / "empty")})
    assert result.returncode == 1
    assert "openmpi-bin" in result.stdout
