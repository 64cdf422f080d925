"""A study from end to end on a tiny model: grid, restart, divergence, job array, report, and `study fit` on its points."""

import csv
import json
import re
import signal
import subprocess
import time

import pytest

import tiny_run

# `launch` gives a lone rank a thread for each core; where these are busy, threads that spin would wait for each other.
tiny_run.ENVIRONMENT.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")

STUDY = """
[study]
name = "tiny"
dir = "{dir}"
config = "{config}"
budget_samples = 64
eval_samples = 16
lr = 1e-3
lr_base_batch = 4
lr_rule = "sqrt"
lr_extend = {extend}
{more}

[grid]
batch = {batch}
lr_factor = {factor}
seed = {seed}
ranks = {ranks}
"""


@pytest.fixture
def study(tmp_path):
    model = tiny_run.write_model(tmp_path / "model", block_out_channels=(16, 32))
    data = tiny_run.write_dataset(tmp_path / "data.h5")
    config = tiny_run.write_config(tmp_path / "base.toml", model, data, tmp_path / "unused",
                                   lr_schedule={"name": "constant"}, optim={"lr": 1.0, "lr_base_batch": 2})

    def write(batch=(4, 8), factor=(1.0,), seed=(1,), ranks=(1,), extend=0, more=""):
        file = tmp_path / "study.toml"
        file.write_text(STUDY.format(dir=tmp_path / "out", config=config, batch=list(batch), factor=list(factor),
                                     seed=list(seed), ranks=list(ranks), extend=extend, more=more))
        return file, tmp_path / "out"

    return write


def rows(out):
    with open(out / "runs.csv", newline="") as f:
        return list(csv.DictReader(f))


def test_grid_report_and_restart(study):
    file, out = study(factor=(1.0, 2.0), ranks=(1, 2))
    tiny_run.run(0, "study", file, timeout=300)
    runs = rows(out)
    assert len(runs) == 8 and all(r["state"] == "finished" for r in runs)
    results = json.loads((out / "results.json").read_text())
    assert [b["batch"] for b in results["batches"]] == [4, 8]
    assert results["target_from"] == "worst_batch"
    assert results["rank_loss_difference"] < 1e-4
    assert len(results["verdict"]) == 3
    assert {s["ranks"] for s in results["scaling"]} == {1, 2}
    # Rate: the prior alone, whatever optim.lr and lr_base_batch of the base say; 16 steps of 4, 8 of 8.
    train = tiny_run.metrics(out / "runs" / "b00008-f2-w0-r1-s1")
    assert len(train) == 8
    assert train[0]["lr"] == pytest.approx(2e-3 * 2**0.5, rel=1e-6)
    page = (out / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert not list((out / "runs").glob("*/checkpoints"))
    # The points are what `study fit` reads.
    fit = json.loads(tiny_run.run(0, "study", "fit", out / "runs.csv", "--where", "is_best=1", "--json").stdout)
    assert fit["noise_scale"] == pytest.approx(results["fit"]["noise_scale"], rel=1e-6)
    # What plan predicts is of the machine that the runs recorded.
    def predicted():
        tiny_run.run(0, "study", file, "--report-only")
        rows = json.loads((out / "results.json").read_text())["scaling"]
        return [row["predicted_images_per_second"] for row in rows]

    on_cpu = predicted()
    assert all(rate > 0 for rate in on_cpu) and ">plan<" in page
    records = {p: p.read_text() for p in (out / "runs").glob("*/provenance.jsonl")}
    by_name = {}
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA A1000"):
        for p, text in records.items():
            gpus = f'"gpus":[{{"model":"{name}","mig_instances":0}}]'
            p.write_text(re.sub(r'"gpus":\[.*?\]', gpus, text).replace('"device":"cpu"', '"device":"cuda:0"'))
        by_name[name] = predicted()
    assert by_name["NVIDIA H100 PCIe"] == by_name["NVIDIA A1000"] == [None] * 4
    assert all(rate > 0 for rate in by_name["NVIDIA H100 80GB HBM3"]) and by_name["NVIDIA H100 80GB HBM3"] != on_cpu
    for p, text in records.items():
        p.write_text(text)
    # Nothing is done twice, whatever the study is called.
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*/metrics.jsonl")}
    file.write_text(file.read_text().replace('name = "tiny"', 'name = "renamed"'))
    tiny_run.run(0, "study", file)
    assert before == {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*/metrics.jsonl")}
    # A finished run of other settings is not taken for one of this study: by the study's file, by CONFIG, by what is evaluated.
    text = file.read_text()
    file.write_text(text.replace("budget_samples = 64", "budget_samples = 128"))
    assert "run.steps grows from" in tiny_run.run(0, "study", file, code=2).stderr
    file.write_text(text)
    base = file.parent / "base.toml"
    config = base.read_text()
    for old, new, said in [("lr_base_batch = 2", "lr_base_batch = 2\nweight_decay = 0.3", "optim.weight_decay: 0.3 here, 0.01"),
                           ("timesteps = 2", "timesteps = 3", "eval.timesteps: 3 here, 2")]:
        assert old in config
        base.write_text(config.replace(old, new))
        for more in ((), ("--report-only",), ("--slurm",)):
            error = tiny_run.run(0, "study", file, *more, code=2).stderr
            assert "other settings" in error and said in error
    base.write_text(config.replace("lr_base_batch = 2", "lr_base_batch = 4"))  # The study sets it.
    tiny_run.run(0, "study", file, "--report-only")
    # Nor is one that never evaluated what the study is about.
    file.write_text(text.replace("lr_extend = 0", 'lr_extend = 0\nmetric = "val_los"'))
    assert 'study.metric = "val_los"' in tiny_run.run(0, "study", file, "--report-only", code=2).stderr


def test_a_metric_that_is_not_evaluated_ends_the_study_at_once(study):
    file, out = study(batch=(4,), more='metric = "val_los"')
    file.write_text(file.read_text().replace("budget_samples = 64", "budget_samples = 400000"))
    error = tiny_run.run(0, "study", file, code=2, timeout=60).stderr
    assert 'study.metric = "val_los"' in error and "val_loss, val_loss_band_0" in error


def test_runs_that_cannot_be_run_are_told_before_the_first(study):
    file, out = study(batch=(4, 6), ranks=(1, 2, 4))
    text = file.read_text()
    assert "every batch divides is 60." in tiny_run.run(0, "study", file, code=2).stderr
    file.write_text(text.replace("budget_samples = 64", "budget_samples = 60"))
    error = tiny_run.run(0, "study", file, code=2).stderr
    assert "run b00006-f1-w0-r4-s1 of the study cannot be run: batch.global = 6 cannot be divided" in error
    for keys, said in [('"optim.weight_decay" = [0.0, -1.0]', "optim.weight_decay"),
                       ('"model.weights" = ["nowhere"]', "nowhere"),
                       ('"eval.every_steps" = [1]', "eval.every_steps is set by the study itself")]:
        file.write_text(text.replace("[4, 6]", "[4]") + f"[grid.keys]\n{keys}\n")
        for more in ((), ("--slurm",)):
            assert said in tiny_run.run(0, "study", file, *more, code=None).stderr
    assert not out.exists()


def test_divergence_ends_a_run_and_not_the_study(study):
    file, out = study(batch=(4,), factor=(1.0, 1e12))
    tiny_run.run(0, "study", file, timeout=200)
    assert sorted(r["state"] for r in rows(out)) == ["diverged", "finished"]


def test_stopped_study_goes_on(study):
    file, out = study(batch=(4,), factor=(1.0,))
    file.write_text(file.read_text().replace("budget_samples = 64", "budget_samples = 1600"))
    process = subprocess.Popen([tiny_run.TRIREME, "study", str(file)], env=tiny_run.ENVIRONMENT)
    metrics = out / "runs" / "b00004-f1-w0-r1-s1" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count('"train"') > 20):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75
    assert not (metrics.parent / "study.json").exists()
    tiny_run.run(0, "study", file, timeout=200)
    steps = [line["step"] for line in tiny_run.metrics(metrics.parent)]
    assert steps == list(range(1, 401))
    assert rows(out)[0]["state"] == "finished"


def test_job_array_runs_what_is_left(study, tmp_path):
    file, out = study(seed=(1, 2))
    script = tmp_path / "array.sbatch"
    script.write_text(tiny_run.run(0, "study", file, "--slurm").stdout)
    assert "#SBATCH --array=1-4\n" in script.read_text() and "#SBATCH --requeue\n" in script.read_text()
    subprocess.run(["bash", script], check=True, env={**tiny_run.ENVIRONMENT, "SLURM_ARRAY_TASK_ID": "2"}, timeout=100)
    assert [folder.name for folder in (out / "runs").iterdir()] == ["b00004-f1-w0-r1-s2"]
    # What is done leaves the array.
    assert "#SBATCH --array=1-3\n" in tiny_run.run(0, "study", file, "--slurm").stdout
    tiny_run.run(0, "study", file, "--report-only")
    assert len(rows(out)) == 1


def test_branches_go_on_from_a_checkpoint(study, tmp_path):
    file, out = study()
    base = tmp_path / "base.toml"
    trunk = tmp_path / "trunk"
    tiny_run.run(0, "launch", base, "-n", 1, "--run-dir", trunk, "--set", "run.steps=8",
                 "--set", "checkpoint.every_steps=4", "--set", "checkpoint.keep=9", "--set", "batch.global=4",
                 "--set", "optim.lr=1e-3", "--set", "optim.lr_base_batch=4", timeout=100)
    checkpoint = trunk / "checkpoints" / "step-00000004"
    text = file.read_text().replace(f'config = "{base}"', f'fork = ["{checkpoint}"]')
    file.write_text(text.replace("budget_samples = 64", "budget_samples = 16"))
    assert "grid.seed cannot be set with study.fork" in tiny_run.run(0, "study", file, code=2).stderr
    file.write_text(file.read_text().replace("seed = [1]\n", ""))
    tiny_run.run(0, "study", file, timeout=200)
    # The branch of the trunk's own batch is the trunk, to the bit; the other sees the same samples in half the steps.
    same = tiny_run.metrics(out / "runs" / "b00004-f1-w0-r1-at16-s42")
    assert [line["step"] for line in same] == [5, 6, 7, 8]
    assert [line["loss"] for line in same] == [line["loss"] for line in tiny_run.metrics(trunk)][4:]
    double = tiny_run.metrics(out / "runs" / "b00008-f1-w0-r1-at16-s42")
    assert [line["step"] for line in double] == [5, 6]
    assert [line["samples"] for line in double] == [24, 32]
    assert double[0]["lr"] == pytest.approx(1e-3 * 2**0.5, rel=1e-6)
    results = json.loads((out / "results.json").read_text())
    assert [b["batch"] for b in results["batches"]] == [4, 8]
    assert results["lossless"][0]["variant"] == "forked at 16 samples" and results["fit"] is None
    assert checkpoint.exists()


@pytest.mark.parametrize("more,text", [
    ("budget = 3", "unknown key 'study.budget'"),
    ('lr_rule = "cubic"', "must be one of linear, sqrt, power"),
    ("tolerance = -1.0", "must be a number of at least"),
])
def test_mistakes_are_named(study, more, text):
    file, _ = study(more=more)
    file.write_text(file.read_text().replace('lr_rule = "sqrt"\n', "", 1) if "lr_rule" in more else file.read_text())
    assert text in tiny_run.run(0, "study", file, code=2).stderr
