"""The UNet of Stable Diffusion 1.5 in full size (860 M parameters), weights random, against diffusers.

One command (about ten minutes on 2 cores, 11 GB of memory, 11 GB of disk):
    ctest --test-dir build -L slow -R full_size_sd15 --verbose
or  TRIREME_BUILD=build PYTHONPATH=tests python -m pytest -s tests/slow/test_full_size_sd15.py
It prints the figures of docs/parity.md.
"""

import gc

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from parity.unet_parity import compare_one, make_inputs, make_model, probe, relative_error, run_diffusers

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SD15 = dict(sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
            down_block_types=(CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
            up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
            cross_attention_dim=768, attention_head_dim=8)


def test_full_size_sd15(tmp_path):
    model = make_model(SD15)
    count = sum(p.numel() for p in model.parameters())
    model.save_pretrained(tmp_path / "unet", max_shard_size="2GB")
    inputs = make_inputs(model, batch=1, size=(32, 32), text_length=77)
    theirs = run_diffusers(model, inputs)
    save_file({k: v.contiguous() for k, v in theirs.items()}, tmp_path / "theirs.safetensors")
    del model, theirs
    gc.collect()

    save_file(inputs, tmp_path / "in.safetensors")
    probe("unet", tmp_path, tmp_path / "in.safetensors", tmp_path / "ours.safetensors")
    with safe_open(tmp_path / "ours.safetensors", "pt") as ours, \
            safe_open(tmp_path / "theirs.safetensors", "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys())
        output = relative_error(ours.get_tensor("output"), theirs.get_tensor("output"))
        keys = [k for k in theirs.keys() if k != "output"]
        scale = max(theirs.get_tensor(k).double().square().mean().sqrt().item() for k in keys)
        worst = max((compare_one(ours.get_tensor(k), theirs.get_tensor(k), scale), k) for k in keys)
    print(f"\nUNet of SD 1.5, {count / 1e6:.0f} M parameters, latents 1x4x32x32, 77 text tokens, fp32 on the CPU: "
          f"output {output:.1e}, worst gradient {worst[0]:.1e} ({worst[1]})")
    assert output <= 1e-5
    assert worst[0] <= 1e-4
