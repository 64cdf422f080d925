"""A job array and a time limit under a real Slurm: Slurm's shortest limit is a minute, and a requeue waits for another."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "slurm"))

from test_slurm import (TEMPLATES, cluster, config_in, metrics, parts, script, uninterrupted,  # noqa: E402, F401
                        wait_for, wait_for_steps, weights_sha256)


def test_an_array_runs_a_study_and_a_time_limit_requeues(cluster, tmp_path, parts, uninterrupted):
    """Each task of the array is a line of the file; beside it a job that its time limit stops."""
    runs = [config_in(tmp_path, parts, f"run {i}") for i in range(2)]
    commands = tmp_path / "commands.txt"
    commands.write_text("".join(f"train '{run}'\n" for run in runs))
    template = (TEMPLATES / "array_study.sbatch").read_text()
    cpu_only = "".join(line for line in template.splitlines(True) if not re.match(r"#SBATCH --(gpus|cpus)", line))
    array_script = tmp_path / "array.sbatch"
    array_script.write_text(cpu_only.replace(" --gpu-bind=none", "").replace("--ntasks=4", "--ntasks=1")
                            .replace("--ntasks-per-node=4", "--ntasks-per-node=1"))
    array = cluster.submit(array_script, commands, options=["--array=1-2"], cwd=tmp_path)
    timed = config_in(tmp_path, parts, "timed", steps=10**6)
    job = cluster.submit(script(timed, "-n", "1", "--time", "1", "--grace", "59"), cwd=tmp_path)
    wait_for_steps(tmp_path / "run 1", 10)
    cluster.run("scancel", "--batch", "--signal=USR1", f"{array}_2")
    for task in (1, 2):
        facts = cluster.wait_for_state(f"{array}_{task}", "COMPLETED", timeout=180)
        assert facts["Restarts"] == str(task - 1)
        assert weights_sha256(tmp_path / f"run {task - 1}") == uninterrupted
    wait_for(lambda: int(cluster.job(job)["Restarts"]) >= 1, 60, "a requeue by the time limit")
    cluster.run("scancel", job)
    assert metrics(tmp_path / "timed")[-1]["step"] > 0
