"""What demo/ ships: its size, its split, and that diffusers and transformers load it as it is."""

import hashlib
import json
from pathlib import Path

import h5py
import pytest
import torch

DEMO = Path(__file__).resolve().parents[2] / "demo"
pytestmark = pytest.mark.skipif(not (DEMO / "base/unet").is_dir(), reason="demo/ is not part of this checkout")


def test_fits_in_thirty_megabytes():
    assert sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file()) <= 30_000_000


def points_of(name):
    with h5py.File(DEMO / name) as file:
        return [int(text.removesuffix(".png").split("u")[-1], 16) for text in file["ids"].asstr()[:]]


def rule(point):
    return int.from_bytes(hashlib.sha256(f"U+{point:04X}".encode()).digest(), "big")


def test_held_out_characters_follow_the_rule():
    train, held_out = points_of("symbola_train.h5"), points_of("symbola_val.h5")
    assert all(rule(point) % 10 != 0 for point in train)
    assert all(rule(point) % 10 == 0 for point in held_out)
    assert held_out == sorted(held_out, key=rule)


def test_held_out_captions_are_never_trained_in_that_style():
    captions = []
    for name in ("symbola_train.h5", "symbola_val.h5"):
        with h5py.File(DEMO / name) as file:
            captions.append(set(file["text/captions"].asstr()[1:]))
    assert not captions[0] & captions[1]


def test_stored_text_is_what_the_text_encoder_gives():
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(DEMO / "base/tokenizer")
    model = CLIPTextModel.from_pretrained(DEMO / "base/text_encoder", dtype=torch.float32).eval()
    with h5py.File(DEMO / "symbola_val.h5") as file:
        captions = list(file["text/captions"].asstr()[:])
        stored = torch.from_numpy(file["text/prompt_embeds"][:]).float()
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).last_hidden_state, stored, rtol=2e-3, atol=2e-3)


def test_diffusers_loads_unet_and_vae():
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(DEMO / "base/unet", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(DEMO / "base/vae", torch_dtype=torch.float32)
    scheduler = DDIMScheduler.from_pretrained(DEMO / "base/scheduler")
    assert scheduler.config.prediction_type == "v_prediction"
    with torch.no_grad():
        latents = unet(torch.zeros(1, 4, 16, 16), 999, torch.zeros(1, 16, 128)).sample
        assert vae.decode(latents / vae.config.scaling_factor).sample.shape == (1, 3, 64, 64)
    with h5py.File(DEMO / "symbola_train.h5") as file:
        assert file.attrs["scaling_factor"] == pytest.approx(vae.config.scaling_factor, rel=1e-6)
    assert json.loads((DEMO / "base/model_index.json").read_text())["unet"][1] == "UNet2DConditionModel"
