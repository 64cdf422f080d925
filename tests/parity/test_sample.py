"""`trireme sample`: pictures, their text chunks, prompts, ranks; and against diffusers with the same noise."""

import numpy as np
import pytest
import torch
from clip_vocabulary import write_tokenizer_folder
from encoders import randomize
from PIL import Image
from reference_train import normals
from safetensors.torch import load_file
from test_checkpoint_verbs import pixels, write_pipeline
from tiny_run import run, write_config, write_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A one-step run of a whole pipeline, text encoder included."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("trained")
    base = write_pipeline(folder / "base")
    text = CLIPTextConfig(vocab_size=49408, hidden_size=24, intermediate_size=48, num_hidden_layers=1,
                          num_attention_heads=4, eos_token_id=49407, bos_token_id=49406, pad_token_id=49407)
    randomize(CLIPTextModel(text), 3).save_pretrained(base / "text_encoder")
    write_tokenizer_folder(base / "tokenizer")
    config = write_config(folder / "c.toml", base, write_dataset(folder / "train.h5"), folder / "run",
                          run={"steps": 1}, checkpoint={"every_steps": 0}, eval={"every_steps": 0})
    run(1, "train", config)
    return folder


def test_single_pictures_and_grid_say_how_they_were_made(trained, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red fish\n\nein Mädchen, 猫\n", encoding="utf-8")
    done = run(2, "sample", trained / "run", "--prompts", prompts, "--prompt", "first", "--negative-prompt", "blurry",
               "--sampler", "euler_ancestral", "--steps", 3, "--guidance", 2.5, "--guidance-rescale", 0.25, "--seed", 9,
               "--out", tmp_path / "deep" / "out.png")
    assert "out/00002.png" in done.stdout
    grid = Image.open(tmp_path / "deep" / "out.png")
    assert grid.size == (2 * 16 + 2, 2 * 16 + 2)
    expected = ["first", "a red fish", "ein Mädchen, 猫"]
    assert grid.text["prompt"] == "\n".join(expected)
    assert grid.text["checkpoint"].endswith("run/checkpoints/step-00000001") and "lora_weight" not in grid.text
    for index, prompt in enumerate(expected):
        picture = Image.open(tmp_path / "deep" / "out" / f"{index:05}.png")
        text = picture.text
        assert picture.size == (16, 16) and text["prompt"] == prompt and text["index"] == str(index)
        settings = {key: text[key] for key in ("negative_prompt", "seed", "sampler", "steps", "guidance", "guidance_rescale")}
        assert settings == dict(negative_prompt="blurry", seed="9", sampler="euler_ancestral", steps="3", guidance="2.5",
                                guidance_rescale="0.25")
        assert text["parameters"].startswith(prompt + "\nNegative prompt: blurry\nSteps: 3, Sampler: euler_ancestral")


def test_a_picture_depends_neither_on_ranks_nor_on_its_company(trained, tmp_path):
    options = ("sample", trained / "run", "--prompt", "a dog", "--sampler", "ddpm", "--steps", 4, "--seed", 3, "--out")
    run(0, *options, tmp_path / "few", "--count", 2)
    run(3, *options, tmp_path / "many", "--count", 5)
    for index in range(2):
        few, many = (pixels(tmp_path / name / f"{index:05}.png") for name in ("few", "many"))
        assert (few == many).all()
    assert (pixels(tmp_path / "many" / "00000.png") != pixels(tmp_path / "many" / "00004.png")).any()


def encode(base, texts):
    from transformers import CLIPTextModel, CLIPTokenizer

    ids = CLIPTokenizer.from_pretrained(base / "tokenizer")(texts, padding="max_length", max_length=77, truncation=True,
                                                            return_tensors="pt").input_ids
    return CLIPTextModel.from_pretrained(base / "text_encoder")(ids).last_hidden_state


@pytest.mark.parametrize("sampler,name", [("ddim", "DDIMScheduler"), ("euler_ancestral", "EulerAncestralDiscreteScheduler"),
                                          ("dpmpp_2m", "DPMSolverMultistepScheduler")])
@torch.no_grad()
def test_pictures_are_those_of_diffusers(trained, tmp_path, monkeypatch, sampler, name):
    import importlib

    import diffusers

    steps, guidance, seed = 5, 3.0, 11
    run(2, "sample", trained / "run", "--prompt", "a cat", "--negative-prompt", "red", "--count", 2, "--sampler", sampler,
        "--steps", steps, "--guidance", guidance, "--seed", seed, "--out", tmp_path / "drawn")
    base, checkpoint = trained / "base", trained / "run" / "checkpoints" / "latest"
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    vae = diffusers.AutoencoderKL.from_pretrained(base / "vae")
    scheduler = getattr(diffusers, name).from_config(diffusers.DDIMScheduler.load_config(base / "scheduler"))
    negative, positive = encode(base, ["red", "a cat"])
    for picture in range(2):
        noise = [torch.from_numpy(np.array(normals(seed, 13, step, picture, 4 * 8 * 8))).float().view(1, 4, 8, 8)
                 for step in range(steps + 1)]
        step = 0
        module = importlib.import_module(type(scheduler).__module__)
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise[step])
        scheduler.set_timesteps(steps)
        x = noise[0] * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            step += 1
            doubled = scheduler.scale_model_input(torch.cat([x, x]), t)
            empty, prompted = unet(doubled, t, torch.stack([negative, positive])).sample.chunk(2)
            x = scheduler.step(empty + guidance * (prompted - empty), t, x).prev_sample
        image = vae.decode(x / vae.config.scaling_factor).sample[0]
        expected = ((image + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
        drawn = pixels(tmp_path / "drawn" / f"{picture:05}.png").astype(float)
        assert np.abs(drawn - expected).max() <= 1 and (drawn != expected).mean() < 0.02


def test_the_checkpoint_keeps_how_the_model_is_sampled(trained):
    import json

    written = json.loads((trained / "run" / "checkpoints" / "latest" / "scheduler" / "scheduler_config.json").read_text())
    base = json.loads((trained / "base" / "scheduler" / "scheduler_config.json").read_text())
    for key in ("timestep_spacing", "steps_offset", "set_alpha_to_one"):
        assert written[key] == base[key]


@pytest.mark.parametrize("options,code,word", [
    (("--sampler", "flow_euler"), 2, "flow_euler"), (("--sampler", "plms"), 2, "sample.sampler"),
    (("--prompts", "/none"), 3, "--prompts"), (("--steps", 1001), 2, "sample.steps"),
    (("--set", "sample.sigmas=karras"), 2, "sample.sigmas"), (("--steps", 2, "--out", "/proc/x/y"), 2, "--out"),
])
def test_what_cannot_be_sampled(trained, options, code, word):
    done = run(2, "sample", trained / "run", "--count", 1, *options, code=code)
    assert word in done.stderr and done.stderr.count("error:") == 1
