"""The encoders of Stable Diffusion 1.5 and 2 in full size, weights random, against diffusers and transformers.

One command (a few minutes, 6 GB):  ctest -L slow -R full_size_encoders --output-on-failure
or, to see the figures:  TRIREME_BUILD=build python -m pytest -s tests/slow/test_full_size_encoders.py
"""
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
from encoders import TOLERANCE, probe, randomize, relative_error  # noqa: E402

TEXT_ENCODERS = {
    "CLIP-L of SD 1.5": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                             eos_token_id=2),
    "OpenCLIP-H of SD 2": dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
                               hidden_act="gelu", projection_dim=512, eos_token_id=2),
}


def report(what, error):
    print(f"\n{what}: relative error {error:.2e}")
    assert error <= TOLERANCE


@torch.no_grad()
def test_vae_of_sd15(tmp_path):
    blocks = 4
    vae = randomize(AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                                  down_block_types=["DownEncoderBlock2D"] * blocks,
                                  up_block_types=["UpDecoderBlock2D"] * blocks), 1)
    vae.save_pretrained(tmp_path / "vae")
    images = torch.rand(1, 3, 256, 256) * 2 - 1
    ours = probe(tmp_path, ["vae", "encode", tmp_path / "vae"], {"images": images})["output"]
    report("VAE of SD 1.5, encode 256x256", relative_error(ours, vae.encode(images).latent_dist.parameters))
    latents = torch.randn(1, 4, 32, 32)
    ours = probe(tmp_path, ["vae", "decode", tmp_path / "vae"], {"latents": latents})["output"]
    report("VAE of SD 1.5, decode 32x32", relative_error(ours, vae.decode(latents).sample))


@pytest.mark.parametrize("name", list(TEXT_ENCODERS))
@torch.no_grad()
def test_text_encoder(tmp_path, name):
    model = randomize(CLIPTextModel(CLIPTextConfig(**TEXT_ENCODERS[name])), 2)
    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 49406, (2, 77))
    ids[:, 40:] = 49407
    ours = probe(tmp_path, ["clip", tmp_path], {"token_ids": ids})
    theirs = model(ids)
    report(f"{name}, hidden states", relative_error(ours["last_hidden_state"], theirs.last_hidden_state))
    report(f"{name}, pooled", relative_error(ours["pooled"], theirs.pooler_output))
