"""eval, sample and export of a checkpoint: against the run that wrote it, and against diffusers and Pillow."""

import json
import os

import h5py
import numpy as np
import pytest
from tiny_run import metrics, run, write_config, write_dataset, write_model


def write_pipeline(folder):
    """The UNet with a VAE, a scheduler and an index around it; returns `folder`."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler

    write_model(folder)
    torch.manual_seed(1)
    AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                  up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
                  scaling_factor=0.5, sample_size=16).save_pretrained(str(folder / "vae"))
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                  steps_offset=1, set_alpha_to_one=False).save_pretrained(str(folder / "scheduler"))
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None],
             "requires_safety_checker": False, "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    base = write_pipeline(folder / "base")
    config = write_config(folder / "c.toml", base, write_dataset(folder / "train.h5"), folder / "run",
                          ema={"decay": 0.9}, sample={"count": 3, "steps": 3})
    run(1, "train", config)
    return folder


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("ranks", [0, 1, 2, 3])
def test_eval_repeats_what_the_run_measured(trained, ranks):
    done = run(ranks, "eval", trained / "run" / "checkpoints" / "latest", "--json")
    line = json.loads(done.stdout)
    of_run = metrics(trained / "run", "eval")[-1]
    assert line["step"] == of_run["step"] == 6
    assert line["val_loss"] == pytest.approx(of_run["val_loss"], rel=1e-9)
    assert line["val_loss_ema"] == pytest.approx(of_run["val_loss_ema"], rel=1e-9)


def test_eval_takes_other_data_and_a_run_directory(trained, tmp_path):
    other = write_dataset(tmp_path / "other.h5", samples=5, seed=3)
    done = run(0, "eval", trained / "run", "--json", "--set", f"data.validation={other}",
               "--set", "data.validation_fraction=0.0")
    assert json.loads(done.stdout)["val_samples"] == 5


def test_eval_without_validation_data_is_a_usage_error(trained):
    done = run(0, "eval", trained / "run", "--set", "data.validation_fraction=0.0", code=2)
    assert "data.validation" in done.stderr and done.stderr.count("error:") == 1


def test_samples_do_not_depend_on_the_number_of_ranks(trained, tmp_path):
    options = ("sample", trained / "run", "--count", 5, "--steps", 4, "--seed", 7, "--ema", "--out")
    run(0, *options, tmp_path / "one.png")
    run(2, *options, tmp_path / "two.png")
    one = pixels(tmp_path / "one.png")
    assert one.shape == (2 * 16 + 2, 3 * 16 + 4, 3)
    assert (one == pixels(tmp_path / "two.png")).all()


def test_comparison_has_a_row_of_before_after_and_real(trained, tmp_path):
    import torch
    from diffusers import AutoencoderKL

    # One training latent is given to validation too: the real picture's nearest is itself.
    with h5py.File(trained / "train.h5") as f:
        latents = f["latents"][:2]
    other = write_dataset(tmp_path / "other.h5", samples=2)
    with h5py.File(other, "r+") as f:
        f["latents"][:] = latents
    done = run(2, "sample", trained / "run", "--compare", "--count", 2, "--out", tmp_path / "c.png", "--set",
               f"data.validation={other}", "--set", "data.validation_fraction=0.0")
    assert "validation loss" in done.stdout and done.stdout.count("the real picture's nearest is at 0\n") == 2
    image = pixels(tmp_path / "c.png")
    assert image.shape == (2 * 16 + 2, 3 * 16 + 4, 3)
    vae = AutoencoderKL.from_pretrained(trained / "base" / "vae")
    with torch.no_grad():
        decoded = vae.decode(torch.from_numpy(latents).float()).sample
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(image[:16, 36:].astype(float) - expected[0]).max() <= 1
    assert np.abs(image[18:, 36:].astype(float) - expected[1]).max() <= 1


@pytest.mark.parametrize("flag, part", [((), "unet"), (("--ema",), "ema")])
def test_export_is_a_folder_that_diffusers_loads(trained, tmp_path, flag, part):
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    out = tmp_path / "model.v1"
    run(0, "export", trained / "run", "--format", "diffusers", "--out", f"{out}/", *flag)
    exported = UNet2DConditionModel.from_pretrained(out, subfolder="unet")
    expected = UNet2DConditionModel.from_pretrained(trained / "run" / "checkpoints" / "latest" / part)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, exported.state_dict()[name]), name
    AutoencoderKL.from_pretrained(out, subfolder="vae")
    assert DDIMScheduler.from_pretrained(out, subfolder="scheduler").config.prediction_type == "epsilon"
    index = json.loads((out / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert index["tokenizer"] == [None, None] and index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert os.listdir(tmp_path) == ["model.v1"]


def test_export_refuses_what_it_cannot_do(trained, tmp_path):
    for form in ("lora-peft", "lora-kohya", "pickle"):
        run(0, "export", trained / "run", "--format", form, "--out", tmp_path / "x", code=2)
    run(0, "export", trained / "run", "--format", "diffusers", "--out", tmp_path, code=2)
    run(0, "export", tmp_path / "none", "--format", "diffusers", "--out", tmp_path / "x", code=3)
    run(0, "export", trained / "run", "--format", "diffusers", "--out", "/proc/x", code=2)
    assert os.listdir(tmp_path) == []


def test_damaged_checkpoints_are_input_errors(trained, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(trained / "run" / "checkpoints" / "step-00000006", broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = run(2, "eval", broken, code=3)
    assert done.stderr.count("error:") == 1 and "SHA-256" in done.stderr
