"""The C++ AutoencoderKL against diffusers', weights random."""
import json

import pytest
import torch
from diffusers import AutoencoderKL
from encoders import TOLERANCE, probe, probe_error, randomize, relative_error
from safetensors.torch import load_file, save_file

CONFIGS = {
    "sd1-like": dict(block_out_channels=(32, 64, 64, 64), layers_per_block=2, latent_channels=4),
    "one-block": dict(block_out_channels=(32,), layers_per_block=1, latent_channels=4),
    "two-blocks": dict(block_out_channels=(16, 48), layers_per_block=1, norm_num_groups=8, latent_channels=3),
    "three-layers": dict(block_out_channels=(24, 24), layers_per_block=3, norm_num_groups=12, act_fn="gelu"),
    "flux-like": dict(block_out_channels=(32, 32), latent_channels=16, use_quant_conv=False,
                      use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159),
    "no-attention": dict(block_out_channels=(32, 64), mid_block_add_attention=False, act_fn="mish"),
    "relu-grey": dict(block_out_channels=(8, 16, 16), norm_num_groups=4, act_fn="relu", in_channels=1, out_channels=1),
}


def make(name, seed=3):
    config = dict(CONFIGS[name])
    blocks = len(config["block_out_channels"])
    config["down_block_types"] = ["DownEncoderBlock2D"] * blocks
    config["up_block_types"] = ["UpDecoderBlock2D"] * blocks
    return randomize(AutoencoderKL(**config), seed)


def inputs_of(vae, size=(32, 48)):
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(2, vae.config.in_channels, *size, generator=generator) * 2 - 1
    latents = torch.randn(2, vae.config.latent_channels, size[0] // factor, size[1] // factor, generator=generator)
    return images, latents


@torch.no_grad()
def compare(vae, folder, tmp_path, tolerance=TOLERANCE, size=(32, 48)):
    images, latents = inputs_of(vae, size)
    moments = vae.encode(images).latent_dist.parameters
    ours = probe(tmp_path, ["vae", "encode", folder], {"images": images})["output"]
    assert relative_error(ours, moments) <= tolerance
    ours = probe(tmp_path, ["vae", "decode", folder], {"latents": latents})["output"]
    assert relative_error(ours, vae.decode(latents).sample) <= tolerance


@pytest.mark.parametrize("name", list(CONFIGS))
def test_encodes_and_decodes_like_diffusers(tmp_path, name):
    vae = make(name)
    vae.save_pretrained(tmp_path / "model" / "vae")
    compare(vae, tmp_path / "model", tmp_path)


def test_odd_sizes(tmp_path):
    vae = make("sd1-like")
    vae.save_pretrained(tmp_path / "vae")
    compare(vae, tmp_path / "vae", tmp_path, size=(40, 72))


def test_reads_half_precision_shards(tmp_path):
    vae = make("two-blocks").half()
    vae.save_pretrained(tmp_path / "vae", max_shard_size="40KB")
    assert len(list((tmp_path / "vae").glob("*.safetensors"))) > 1
    compare(vae.float(), tmp_path / "vae", tmp_path)


def test_reads_the_fp16_variant(tmp_path):
    vae = make("two-blocks").half()
    vae.save_pretrained(tmp_path / "vae", variant="fp16")
    compare(vae.float(), tmp_path / "vae", tmp_path)


@pytest.mark.parametrize("shape", ["linear", "convolution"])
def test_reads_old_attention_names(tmp_path, shape):
    vae = make("sd1-like")
    vae.save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, tensor in load_file(file).items():
        if ".attentions." in name:
            for then, now in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
                name = name.replace(f".{now}.", f".{then}.")
            if shape == "convolution" and tensor.dim() == 2:
                tensor = tensor[:, :, None, None].contiguous()
        old[name] = tensor
    assert any("proj_attn" in name for name in old)
    save_file(old, file, metadata={"format": "pt"})
    compare(vae, tmp_path / "vae", tmp_path)


@pytest.mark.parametrize(("key", "value"), [
    ("act_fn", "elu"), ("latents_mean", [0.0] * 4), ("norm_num_groups", 7), ("block_out_channels", []),
    ("block_out_channels", [32, 10**9]), ("down_block_types", ["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
    ("layers_per_block", 0), ("latent_channels", "4"), ("some_new_option", 3), ("_class_name", "VQModel"),
    ("scaling_factor", None)])
def test_a_config_that_cannot_be_represented_names_the_key(tmp_path, key, value):
    make("no-attention").save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae" / "config.json"
    config = json.loads(file.read_text())
    config[key] = value
    file.write_text(json.dumps(config))
    assert key in probe_error(tmp_path, ["vae", "encode", tmp_path / "vae"], {"images": torch.zeros(1, 3, 8, 8)})


def test_unfitting_weights_are_named(tmp_path):
    vae = make("no-attention")
    vae.save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    inputs = {"images": torch.zeros(1, 3, 8, 8)}

    def error_with(changed):
        save_file(changed, file)
        return probe_error(tmp_path, ["vae", "encode", tmp_path / "vae"], inputs)

    assert "missing: encoder.conv_in.bias" in error_with({k: v for k, v in tensors.items() if k != "encoder.conv_in.bias"})
    assert "surplus: extra" in error_with({**tensors, "extra": torch.zeros(1)})
    assert "quant_conv.weight" in error_with({**tensors, "quant_conv.weight": torch.zeros(3, 3)})
    nan = tensors["decoder.conv_in.weight"].clone()
    nan[0, 0, 0, 0] = float("nan")
    assert "decoder.conv_in.weight" in error_with({**tensors, "decoder.conv_in.weight": nan})
    file.write_bytes(file.read_bytes()[:1000])
    assert str(file) in probe_error(tmp_path, ["vae", "encode", tmp_path / "vae"], inputs)
    file.unlink()
    assert "diffusion_pytorch_model.safetensors" in probe_error(tmp_path, ["vae", "encode", tmp_path / "vae"], inputs)
