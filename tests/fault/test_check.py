"""`trireme check` as an adviser: each warning where settings fight, and silence right beside it."""

import json

import pytest
from tiny_run import run, write_config, write_dataset, write_model

SOUND = {"run": {"steps": 200}, "data": {"caption_dropout": 0.1}, "lr_schedule": {"warmup_steps": 10}, "eval": {"every_steps": 50}}

# What provokes the warning, what just does not, and words of what it says: the fact, the reason, the remedy.
CASES = {
    "learning rate far from its reference": (
        ["optim.lr_base_batch=1", "batch.global=16", "optim.lr=1e-5"],
        ["optim.lr_base_batch=1", "batch.global=16", "optim.lr=1e-5", "optim.lr_scaling=sqrt"],
        ["scaled by 16", "hold near their reference", "sqrt"]),
    "warm-up longer than training": (
        ["lr_schedule.warmup_steps=200"], ["lr_schedule.warmup_steps=100"],
        ["warm-up (200 steps)", "never reaches its value", "warmup_fraction"]),
    "epochs of small data": (
        ["run.steps=2500"], ["run.steps=2000"], ["each of 360 samples", "by heart (overfitting)", "early_stopping.patience"]),
    "strong decay with a high rate": (
        ["optim.lr=1e-2", "optim.weight_decay=0.1"], ["optim.lr=1e-2", "optim.weight_decay=0.005"],
        ["strong for a learning rate of 0.01", "in proportion to the rate", "Lower one"]),
    "dataset smaller than a batch": (
        ["batch.global=512", "run.steps=5", "lr_schedule.warmup_steps=1", "eval.every_steps=5"],
        ["batch.global=360", "run.steps=5", "lr_schedule.warmup_steps=1", "eval.every_steps=5"],
        ["fewer samples (360", "more than once", "Lower batch.global"]),
    "zero terminal SNR without v prediction": (
        ["noise.rescale_zero_terminal_snr=true"],
        ["noise.rescale_zero_terminal_snr=true", "objective.prediction=v_prediction"],
        ["rescale_zero_terminal_snr", "says nothing of the picture", 'objective.prediction = "v_prediction"']),
    "EMA longer than the run": (
        ["ema.decay=0.999"], ["ema.decay=0.99"], ["averages over some 1000 steps", "keeps much of the early weights", "Lower it"]),
    "evaluations that take longer than training": (
        ["eval.every_steps=2", "eval.timesteps=8"], ["eval.every_steps=50", "eval.timesteps=8"],
        ["101 evaluations of 640", "more time than training", "eval.overfit_gap = false"]),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    return write_config(folder / "c.toml", write_model(folder / "model"), write_dataset(folder / "train.h5", samples=400),
                        folder / "run", **SOUND)


def warnings_of(config, changes=()):
    shown = run(0, "check", config, *(word for change in changes for word in ("--set", change))).stdout
    quiet = shown.rstrip().endswith("no warnings")
    assert quiet or "\nwarnings\n" in shown
    return [] if quiet else shown.split("\nwarnings\n")[1].strip().splitlines()


def test_sound_settings_pass_in_silence(config):
    assert warnings_of(config) == []
    assert not (config.parent / "run").exists()


@pytest.mark.parametrize("case", CASES)
def test_a_warning_says_what_why_and_the_remedy(config, case):
    provoking, harmless, words = CASES[case]
    warnings = warnings_of(config, provoking)
    assert len(warnings) == 1, warnings
    assert all(word in warnings[0] for word in words), warnings
    assert warnings_of(config, harmless) == []


def test_v_prediction_against_the_scheduler_config(config, tmp_path):
    model = write_model(tmp_path / "model")
    (model / "scheduler").mkdir()
    (model / "scheduler" / "scheduler_config.json").write_text(json.dumps(
        {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
         "prediction_type": "epsilon"}))
    weights = f"model.weights={model}"
    warnings = warnings_of(config, [weights, "objective.prediction=v_prediction"])
    assert len(warnings) == 1
    for words in ("objective.prediction is v_prediction", "trained with epsilon", "scheduler_config.json", "Remove the key"):
        assert words in warnings[0]
    assert warnings_of(config, [weights, "objective.prediction=epsilon"]) == []
    assert warnings_of(config, [weights]) == []
    assert "noise.beta_end is 0.02, but the model was trained with 0.012" in warnings_of(config, [weights, "noise.beta_end=0.02"])[0]


def test_the_numbers_that_it_prints(config):
    shown = run(0, "check", config, "-n", 2, "--set", "optim.lr_base_batch=2", "--set", "optim.lr_scaling=sqrt",
                "--set", "lr_schedule.name=constant", "--set", "lr_schedule.warmup_steps=0", "--set", "ema.decay=0.98").stdout
    rows = {line[2:24].strip(): line[24:].strip() for line in shown.splitlines() if line.startswith("  ")}
    assert rows["effective batch"] == "8 = 2 pieces x 1 x micro-batch 4"
    assert rows["steps per epoch"] == "45" and rows["epochs"] == "4.444" and rows["samples seen"] == "1,600"
    assert rows["after scaling"].startswith("0.002 (sqrt: 0.001 x")
    assert rows["warm-up"].startswith("0 steps, 0 %") and rows["EMA half-life"] == "34.31 steps"
    assert rows["decay x rate x steps"] == "0.004, alone shrinks a weight by 0.3992 %"
    # 40 held-out and 40 training samples at 2 points, weights and average.
    assert "5 evaluations" in rows["time"] and "training" in rows["time"]
