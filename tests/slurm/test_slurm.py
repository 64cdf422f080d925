"""Launching under a real Slurm of two nodes: batch scripts, preemption, requeue, limits, cancellation, arrays."""
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import tiny_run
from cluster import Cluster, reason_to_skip, wait_for
from tiny_run import ENVIRONMENT, TRIREME, metrics, weights_sha256, write_config, write_dataset, write_model

TEMPLATES = Path(__file__).resolve().parents[2] / "slurm"
STEPS = 300


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    reason = reason_to_skip()
    if reason:
        print(f"skipped: {reason}")
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return write_model(folder, block_out_channels=(16, 32)), write_dataset(folder / "train.h5")


@pytest.fixture()
def config(tmp_path, parts):
    return config_in(tmp_path, parts, "run")


def config_in(folder, parts, name, **run):
    return write_config(folder / f"{name}.toml", *parts, folder / name, run={"name": name, "steps": STEPS, **run},
                        eval={"every_steps": 0}, checkpoint={"every_steps": 0}, parallel={"shards": 2}, batch={"global": 2})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, parts):
    """The weights of the same run on one rank, never stopped."""
    folder = tmp_path_factory.mktemp("reference")
    tiny_run.run(0, "train", config_in(folder, parts, "reference"), timeout=300)
    return weights_sha256(folder / "reference")


def script(config, *options):
    """What `launch --slurm` writes, beside the configuration."""
    done = subprocess.run([TRIREME, "launch", str(config), "--slurm", *options], env=ENVIRONMENT, text=True,
                          cwd=config.parent, stdout=subprocess.PIPE, check=True)
    file = config.with_suffix(".sbatch")
    file.write_text(done.stdout)
    return file


def wait_for_steps(run_dir, count):
    file = Path(run_dir) / "metrics.jsonl"
    wait_for(lambda: file.exists() and len(file.read_text().splitlines()) >= count, 60, f"{count} steps in {run_dir}")


def starts(run_dir):
    return [line for line in map(json.loads, (Path(run_dir) / "provenance.jsonl").read_text().splitlines())
            if line["kind"] == "start"]


def output(cluster, job):
    return Path(cluster.job(job)["StdOut"]).read_text()


def test_a_preempted_run_on_two_nodes_is_requeued_once_and_ends_with_the_same_bits(cluster, config, tmp_path,
                                                                                    uninterrupted):
    job = cluster.submit(script(config, "--nodes", "2", "-n", "2"), cwd=tmp_path)
    wait_for_steps(tmp_path / "run", 20)
    assert starts(tmp_path / "run")[0]["num_ranks"] == 2
    ranks = processes_of(config)
    for pid in ranks:  # They must not be done before Slurm gets to preempting them.
        os.kill(pid, signal.SIGSTOP)
    urgent = cluster.submit(write_script(tmp_path, "sleep 1"), options=["--partition=urgent", "-N2", "--exclusive"],
                            cwd=tmp_path)
    wait_for(lambda: cluster.job(job)["PreemptTime"] != "None", what="preemption")
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    cluster.wait_for_state(urgent, "COMPLETED", timeout=60)
    facts = cluster.wait_for_state(job, "COMPLETED", timeout=180)
    assert facts["Restarts"] == "1", output(cluster, job)
    steps = [line["step"] for line in metrics(tmp_path / "run")]
    assert steps == list(range(1, STEPS + 1))
    assert len(starts(tmp_path / "run")) == 2
    assert weights_sha256(tmp_path / "run") == uninterrupted


def processes_of(config):
    """The ranks that train `config`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"/trireme") and words[1:3] == [b"train", str(config).encode()]:
            found.append(int(entry.name))
    assert found
    return found


def write_script(folder, body):
    file = folder / "other.sh"
    file.write_text(f"#!/bin/bash\n{body}\n")
    return file


# Of the steps, of the batch shell, of both in either order, and twice.
SIGNALS = {
    "steps": [["--signal=USR1"]],
    "shell": [["--batch", "--signal=USR1"]],
    "both": [["--signal=TERM"], ["--batch", "--signal=TERM"]],
    "full": [["--full", "--signal=USR1"], ["--batch", "--signal=TERM"], ["--signal=TERM"]],
}


def test_a_signal_to_steps_shell_or_both_requeues_once(cluster, tmp_path, parts, uninterrupted):
    """All at the same time, since a requeued job waits ten seconds."""
    jobs = {}
    for name, signals in SIGNALS.items():
        config = config_in(tmp_path, parts, name)
        jobs[name] = cluster.submit(script(config, "--nodes", "1", "-n", "1"), cwd=tmp_path)
    for name, signals in SIGNALS.items():
        wait_for_steps(tmp_path / name, 10)
        for words in signals:
            cluster.run("scancel", *words, jobs[name])
    for name, job in jobs.items():
        facts = cluster.wait_for_state(job, "COMPLETED", timeout=180)
        assert facts["Restarts"] == "1", (name, output(cluster, job))
        assert weights_sha256(tmp_path / name) == uninterrupted, name
        assert len(starts(tmp_path / name)) == 2, name


def test_run_max_hours_a_cancelled_job_and_a_drained_node(cluster, tmp_path, parts, uninterrupted):
    """Three jobs at a time: the first stops by its own clock, the second is cancelled, the third moves."""
    limited = config_in(tmp_path, parts, "limited", max_hours=1.5 / 3600)
    endless = config_in(tmp_path, parts, "endless")
    moved = config_in(tmp_path, parts, "moved")
    one = ("--nodes", "1", "-n", "1")
    jobs = {"limited": cluster.submit(script(limited, *one), cwd=tmp_path),
            "endless": cluster.submit(script(endless, *one), cwd=tmp_path),
            "moved": cluster.submit(script(moved, *one), cwd=tmp_path)}
    wait_for_steps(tmp_path / "moved", 10)
    node = cluster.job(jobs["moved"])["BatchHost"]
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        cluster.run("scancel", "--batch", "--signal=USR1", jobs["moved"])
        wait_for_steps(tmp_path / "endless", 10)
        cluster.run("scancel", jobs["endless"])
        facts = cluster.wait_for_state(jobs["moved"], "COMPLETED", timeout=180)
        assert facts["BatchHost"] != node and facts["Restarts"] == "1"
        assert weights_sha256(tmp_path / "moved") == uninterrupted
    finally:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert cluster.state(jobs["endless"]) == "CANCELLED"  # And not run again.
    facts = cluster.wait_for_state(jobs["limited"], "COMPLETED", "PENDING", "RUNNING", timeout=30)
    wait_for(lambda: int(cluster.job(jobs["limited"])["Restarts"]) >= 1, 60, "a requeue by run.max_hours")
    cluster.run("scancel", jobs["limited"])


STUDY = """
[study]
name = "tiny"
dir = "{dir}"
config = "{config}"
budget_samples = 600
eval_samples = 300
lr = 1e-3
lr_base_batch = 2

[grid]
batch = [2]
lr_factor = [1.0]
seed = [1, 2]
"""


def test_a_time_limit_an_array_and_a_study(cluster, tmp_path, parts, uninterrupted):
    """At the same time: Slurm looks at time limits every half a minute, and a requeued job waits ten seconds."""
    timed = config_in(tmp_path, parts, "timed", steps=10**6)
    limited = cluster.submit(script(timed, "-n", "1", "--time", "1", "--grace", "59"), cwd=tmp_path)
    # An array whose tasks are the lines of a file.
    commands = tmp_path / "commands.txt"
    commands.write_text("".join(f"train '{config_in(tmp_path, parts, f'run {i}')}'\n" for i in range(2)))
    template = (TEMPLATES / "array_study.sbatch").read_text().replace(" --gpu-bind=none", "")
    template = re.sub(r"#SBATCH --(gpus|cpus).*\n", "", template)
    array_script = tmp_path / "array.sbatch"
    array_script.write_text(re.sub(r"#SBATCH --ntasks(-per-node)?=4", r"#SBATCH --ntasks\1=1", template))
    array = cluster.submit(array_script, commands, options=["--array=1-2"], cwd=tmp_path)
    # And one that `study` writes.
    study = tmp_path / "study.toml"
    study.write_text(STUDY.format(dir=tmp_path / "study", config=config_in(tmp_path, parts, "base")))
    study_script = tmp_path / "study.sbatch"
    study_script.write_text(tiny_run.run(0, "study", study, "--slurm").stdout)
    study_array = cluster.submit(study_script, cwd=tmp_path)

    second_run = tmp_path / "study" / "runs" / "b00002-f1-w0-r1-s2"
    for folder, task in ((tmp_path / "run 1", f"{array}_2"), (second_run, f"{study_array}_2")):
        wait_for_steps(folder, 10)
        cluster.run("scancel", "--batch", "--signal=USR1", task)
    for job in (array, study_array):
        for task in (1, 2):
            facts = cluster.wait_for_state(f"{job}_{task}", "COMPLETED", timeout=120)
            assert facts["Restarts"] == str(task - 1), output(cluster, f"{job}_{task}")
    assert weights_sha256(tmp_path / "run 0") == weights_sha256(tmp_path / "run 1") == uninterrupted
    assert [line["step"] for line in metrics(second_run)] == list(range(1, 301))
    assert {json.loads(file.read_text())["state"] for file in second_run.parent.glob("*/study.json")} == {"finished"}
    wait_for(lambda: int(cluster.job(limited)["Restarts"]) >= 1, 90, "a requeue by the time limit")
    cluster.run("scancel", limited)
    # The requeued job may have begun meanwhile. Only a stop writes a checkpoint of this run.
    ends = [line for line in map(json.loads, (tmp_path / "timed" / "provenance.jsonl").read_text().splitlines())
            if line["kind"] == "end"]
    assert ends[0]["exit_code"] == 75
    assert (tmp_path / "timed" / "checkpoints" / "latest").resolve().is_dir()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("plugin", ["none", "pmi2"])
def test_a_wrong_mpi_plugin_is_told_before_mpi_starts(cluster, config, ranks, plugin):
    done = subprocess.run(["srun", f"--mpi={plugin}", f"-n{ranks}", TRIREME, "train", str(config)], text=True,
                          env=cluster.environment, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 2, done.stderr
    assert len(re.findall("^error: ", done.stderr, re.M)) == 1 and "--mpi=pmix" in done.stderr


@pytest.mark.parametrize("starter", ["auto", "mpirun"])
def test_launch_starts_the_ranks_of_an_allocation(cluster, config, tmp_path, starter):
    body = f"{TRIREME} launch {config} --starter {starter} --rank-output --set run.steps=3"
    job = cluster.submit(write_script(tmp_path, body), options=["-N1", "-n2"], cwd=tmp_path)
    cluster.wait_for_state(job, "COMPLETED")
    assert starts(tmp_path / "run")[0]["num_ranks"] == 2
    assert "as given" in (tmp_path / "run" / "ranks" / "rank-00000.log").read_text()
    assert "SLURM_JOB_ID" in starts(tmp_path / "run")[0]["environment"]


def test_doctor_examines_the_nodes_of_an_allocation(cluster, tmp_path):
    done = subprocess.run(["srun", "--mpi=pmix", "-N2", "-n2", TRIREME, "doctor", "--json", "--dir", str(tmp_path)],
                          text=True, env=cluster.environment, stdout=subprocess.PIPE, timeout=180)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and len(report["hosts"]) == 2
    assert {check["check"]: check for check in report["checks"]}["Slurm"]["found"].endswith("with PMIx")
