"""LoRA training against PEFT on diffusers' UNet, and what a run with an adapter leaves behind."""
import json
import math
import shutil

import numpy as np
import pytest
import tiny_run
import tomllib
import torch
from parity import reference_train
from safetensors import safe_open
from safetensors.torch import load_file

STEPS = 8
ADAPTER_WEIGHTS = 20  # Philox stream
EVERYTHING = ["to_q", "to_v", "to_out.0", "conv1", "conv_in", "conv_shortcut", "proj_in", "proj_out", "ff.net.0.proj",
              "ff.net.2", "time_emb_proj", "downsamplers.0.conv", "linear_1"]

CASES = {
    "attention": dict(
        adapter={"type": "lora", "rank": 4, "alpha": 8.0},
        optim={"lr": 2e-3, "eps": 1e-4},
        lr_schedule={"name": "constant", "warmup_steps": 0}),
    "everything_with_prior": dict(
        adapter={"type": "lora", "rank": 3, "alpha": 5.0, "targets": EVERYTHING, "use_rslora": True},
        data={"prior_weight": 0.7, "shuffle": False, "caption_dropout": 0.2, "flip": 0.5},
        objective={"prediction": "v_prediction", "snr_gamma": 5.0},
        optim={"lr": 1e-3, "eps": 1e-4, "weight_decay": 0.1},
        ema={"decay": 0.9}),
}


def is_named(module, target):
    return module == target or module.endswith("." + target)


def add_peft(model, adapter, seed):
    """PEFT's own LoRA, its A filled from the same positions of the random stream."""
    from peft import LoraConfig

    layers = [name.removesuffix(".weight") for name, p in model.named_parameters()
              if name.endswith(".weight") and p.dim() in (2, 4)]
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=adapter["rank"], lora_alpha=adapter["alpha"], target_modules=adapter.get(
        "targets", ["to_q", "to_k", "to_v", "to_out.0"]), use_rslora=adapter.get("use_rslora", False)))
    for name, parameter in model.named_parameters():
        if ".lora_A." not in name:
            continue
        number = layers.index(name.split(".lora_A.")[0])
        words = reference_train.words(seed, ADAPTER_WEIGHTS, 0, number, (parameter.numel() + 3) // 4)
        bound = 1 / math.sqrt(parameter[0].numel())
        values = ((2 * reference_train.uniform(words) - 1) * bound).astype(np.float32)[:parameter.numel()]
        parameter.data.copy_(torch.from_numpy(values).view(parameter.shape))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    model = tiny_run.write_model(folder / "model", use_linear_projection=False)
    return (model, tiny_run.write_dataset(folder / "train.h5", samples=21),
            tiny_run.write_dataset(folder / "prior.h5", samples=5, seed=9))


def write_case(case, inputs, folder, **more):
    model, train, prior = inputs
    tables = {k: dict(v) for k, v in CASES[case].items()}
    tables.setdefault("run", {})["steps"] = STEPS
    tables.setdefault("data", {})["validation_fraction"] = None
    if "prior_weight" in tables["data"]:
        tables["data"]["prior"] = [str(prior)]
    tables |= {"eval": {"every_steps": 0}, "checkpoint": {"every_steps": 0}}
    for table, keys in more.items():
        tables.setdefault(table, {}).update(keys)
    return tiny_run.write_config(folder / "config.toml", model, train, folder / "run", **tables)


@pytest.fixture(scope="module", params=CASES)
def reference(request, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = write_case(request.param, inputs, folder)
    order = folder / "order.tsv"
    order.write_text(tiny_run.run(0, "inspect", config, "--order", f"1:{STEPS}").stdout)
    parsed = tomllib.loads(config.read_text())
    prepare = lambda model: add_peft(model, parsed["adapter"], parsed["run"].get("seed", 42))  # noqa: E731
    return folder, config, reference_train.train(parsed, order, STEPS, prepare)


def compare_weights(folder, theirs):
    ours = load_file(folder / "pytorch_lora_weights.safetensors")
    theirs = {"unet." + k.replace(".default.weight", ".weight"): v for k, v in theirs.items()}
    assert ours.keys() == theirs.keys()
    difference = sum((ours[k] - v).square().sum().item() for k, v in theirs.items()) ** 0.5
    size = sum(v.square().sum().item() for v in theirs.values()) ** 0.5
    assert difference <= 1e-5 * size, f"{difference / size:.1e}"


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_losses_and_weights_are_those_of_peft(reference, ranks):
    compare_with_peft(reference, ranks, "batch.micro=2")


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("option", ["shard_optimizer", "activation_checkpointing"])
def test_options_of_the_machinery_change_nothing(reference, ranks, option):
    compare_with_peft(reference, ranks, f"parallel.{option}=true")


def compare_with_peft(reference, ranks, change):
    folder, config, (lines, weights, average) = reference
    run_dir = folder / f"run-{ranks}-{change}"
    tiny_run.run(ranks, "train", config, "--run-dir", run_dir, "--set", change)
    ours = tiny_run.metrics(run_dir)
    for mine, theirs in zip(ours, lines, strict=True):
        for key, tolerance in (("loss", 1e-5), ("lr", 1e-12), ("grad_norm", 1e-4)):
            assert mine[key] == pytest.approx(theirs[key], rel=tolerance), (mine["step"], key)
    assert all(("prior_loss" in line) == ("prior =" in config.read_text()) for line in ours)
    checkpoint = run_dir / "checkpoints" / "latest"
    compare_weights(checkpoint / "adapter", weights)
    if "[ema]" in config.read_text():
        compare_weights(checkpoint / "ema", average)
    assert not (checkpoint / "unet").exists()
    with safe_open(checkpoint / "optimizer.safetensors", "pt") as state:
        assert {name.split("/", 1)[1] for name in state.keys()} == {
            k.replace(".default.weight", ".weight") for k in weights}


def test_a_checkpoint_says_what_it_belongs_to(inputs, tmp_path):
    import hashlib

    config = write_case("attention", inputs, tmp_path, run={"steps": 1})
    tiny_run.run(1, "train", config)
    adapter = tmp_path / "run" / "checkpoints" / "latest" / "adapter"
    base = json.loads((adapter / "base.json").read_text())
    weights = inputs[0] / "unet" / "diffusion_pytorch_model.safetensors"
    assert base == {"path": str(inputs[0]), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    with safe_open(adapter / "pytorch_lora_weights.safetensors", "pt") as f:
        metadata = json.loads(f.metadata()["lora_adapter_metadata"])
    assert metadata["unet.r"] == 4 and metadata["unet.lora_alpha"] == 8
    assert len(metadata["unet.target_modules"]) == 4 * 2 * 4  # Four transformers.
    shown = tiny_run.run(0, "inspect", adapter.parent, "--verify").stdout
    assert "unet.lora_alpha" in shown and base["sha256"] in shown


@pytest.mark.parametrize("option", ["shard_optimizer", "activation_checkpointing"])
def test_stopped_and_resumed_at_other_ranks_gives_the_same_bits(inputs, tmp_path, option):
    changes = dict(parallel={"shards": 4, option: True}, checkpoint={"every_steps": 2}, adapter={"dropout": 0.2}, model={"dropout": 0.1})
    whole = write_case("everything_with_prior", inputs, tmp_path, **changes)
    tiny_run.run(1, "train", whole)
    for ranks, steps in ((4, 4), (2, STEPS)):
        tiny_run.run(ranks, "train", whole, "--run-dir", tmp_path / "parts", "--set", f"run.steps={STEPS}",
                     *(() if steps == STEPS else ("--set", "checkpoint.keep=0")))
        if steps < STEPS:  # As if it had been killed after step 4.
            for step in range(6, STEPS + 1, 2):
                shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{step:08d}")
    for part in ("adapter", "ema"):
        files = [tmp_path / run / "checkpoints" / "latest" / part / "pytorch_lora_weights.safetensors"
                 for run in ("run", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), part


def test_dropout_depends_on_the_position_alone(inputs, tmp_path):
    config = write_case("attention", inputs, tmp_path, batch={"micro": 2}, adapter={"dropout": 0.3})
    losses = []
    for ranks, changes in ((1, ()), (2, ()), (1, ("--set", "adapter.dropout=0.0"))):
        run_dir = tmp_path / f"run-{len(losses)}"
        tiny_run.run(ranks, "train", config, "--run-dir", run_dir, *changes)
        losses.append([line["loss"] for line in tiny_run.metrics(run_dir)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    # B is zero at first, so dropout shows from the second step on.
    assert losses[0][0] == losses[2][0] and abs(losses[0][-1] / losses[2][-1] - 1) > 1e-5


def test_activation_checkpointing_draws_the_same_masks_again(inputs, tmp_path):
    config = write_case("attention", inputs, tmp_path, adapter={"dropout": 0.3}, model={"dropout": 0.2})
    losses = []
    for is_on in ("false", "true"):
        tiny_run.run(1, "train", config, "--run-dir", tmp_path / is_on, "--set", f"parallel.activation_checkpointing={is_on}")
        losses.append([line["loss"] for line in tiny_run.metrics(tmp_path / is_on)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_another_base_is_refused(inputs, tmp_path):
    config = write_case("attention", inputs, tmp_path, run={"steps": 1})
    tiny_run.run(1, "train", config)
    other = tiny_run.write_model(tmp_path / "other", seed=5)
    for verb in (("sample", "--count", "1", "--set", f"sample.vae={other}"), ("eval", "--set", "data.validation_fraction=0.2"),
                 ("export", "--format", "diffusers", "--out", tmp_path / "x")):
        done = tiny_run.run(1, verb[0], tmp_path / "run", *verb[1:], "--set", f"model.weights={other}", code=3)
        assert "SHA-256" in done.stderr and str(inputs[0]) in done.stderr
    shutil.copytree(inputs[0], tmp_path / "model")
    config.write_text(config.read_text().replace(str(inputs[0]), str(tmp_path / "model")))
    tiny_run.run(1, "train", config, "--fresh")
    shutil.copytree(other, tmp_path / "model", dirs_exist_ok=True)
    assert "SHA-256" in tiny_run.run(2, "train", config, "--set", "run.steps=2", code=3).stderr


def test_a_target_that_names_nothing_is_a_usage_error(inputs, tmp_path):
    config = write_case("attention", inputs, tmp_path, adapter={"targets": ["to_q", "to_x"]})
    done = tiny_run.run(2, "train", config, code=2)
    assert "'to_x'" in done.stderr and "to_out.0" in done.stderr


def test_freezing_reaches_into_the_adapter(inputs, tmp_path):
    config = write_case("attention", inputs, tmp_path, freeze={"groups": ["encoder"], "patterns": ["lora_A"]})
    tiny_run.run(1, "train", config)
    checkpoint = tmp_path / "run" / "checkpoints" / "latest"
    weights = load_file(checkpoint / "adapter" / "pytorch_lora_weights.safetensors")
    for name, tensor in weights.items():
        if ".lora_B." in name:
            assert ("down_blocks" in name) == (not tensor.any()), name
    assert all("lora_B" in name and "down_blocks" not in name for name in load_file(
        checkpoint / "optimizer.safetensors"))


def test_rate_multipliers_by_pattern(inputs, tmp_path):
    """A factor of 0 keeps tensors, 2 moves those of a first step twice as far."""
    config = write_case("attention", inputs, tmp_path, run={"steps": 1}, optim={"weight_decay": 0.0})
    moved = []
    for factors in ("{}", '{"lora_B" = 2.0, "up_blocks" = 0.0}'):
        run_dir = tmp_path / f"run-{len(moved)}"
        tiny_run.run(1, "train", config, "--run-dir", run_dir, "--set", f"optim.lr_multipliers={factors}")
        moved.append(load_file(run_dir / "checkpoints" / "latest" / "adapter" / "pytorch_lora_weights.safetensors"))
    for name, plain in moved[0].items():
        if ".lora_B." in name:
            factor = 0.0 if "up_blocks" in name else 2.0
            torch.testing.assert_close(moved[1][name], factor * plain, rtol=1e-5, atol=0)
    done = tiny_run.run(2, "train", config, "--fresh", "--set", 'optim.lr_multipliers={"nothing" = 2.0}', code=2)
    assert "'nothing' is found in no" in done.stderr
    assert "not a regular" in tiny_run.run(0, "check", config, "--set", 'optim.lr_multipliers={"(" = 2.0}', code=2).stderr
    assert "at least 0" in tiny_run.run(0, "check", config, "--set", 'optim.lr_multipliers={"a" = -1.0}', code=2).stderr
    # The resolved configuration reads back.
    tiny_run.run(1, "train", tmp_path / "run-1" / "config.toml")
