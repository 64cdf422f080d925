"""Compares the C++ UNet with diffusers' through model_probe."""

import json
import os
import pathlib
import subprocess

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "model_probe"


def probe(*arguments, check=True):
    result = subprocess.run([PROBE, *map(str, arguments)], capture_output=True, text=True)
    if check and result.returncode != 0:
        raise AssertionError(f"model_probe {arguments[0]} returned {result.returncode}: {result.stderr}")
    return result


def make_model(config, seed=0):
    """diffusers' model with random weights, also where it starts from ones and zeros."""
    torch.manual_seed(seed)
    model = UNet2DConditionModel(**config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_inputs(model, batch=2, size=(8, 8), text_length=7, seed=1):
    torch.manual_seed(seed)
    config = model.config
    inputs = {
        "latents": torch.randn(batch, config.in_channels, *size),
        "timesteps": torch.randint(0, 1000, (batch,)),
        "output_grad": torch.randn(batch, config.out_channels, *size),
    }
    width = config.cross_attention_dim
    width = width[0] if isinstance(width, (list, tuple)) else width
    if text_length > 0:
        inputs["encoder_hidden_states"] = torch.randn(batch, text_length, width)
    if model.class_embedding is not None:
        inputs["class_labels"] = torch.randint(0, config.num_class_embeds or 1000, (batch,))
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["pooled_prompt_embeds"] = torch.randn(batch, pooled)
        inputs["add_time_ids"] = torch.randint(0, 512, (batch, 6)).float()
    return inputs


def run_diffusers(model, inputs):
    """Output, and gradients of the latents and of every parameter."""
    latents = inputs["latents"].clone().requires_grad_(True)
    added = None
    if "add_time_ids" in inputs:
        added = {"text_embeds": inputs["pooled_prompt_embeds"], "time_ids": inputs["add_time_ids"]}
    output = model(latents, inputs["timesteps"], inputs.get("encoder_hidden_states"),
                   class_labels=inputs.get("class_labels"), added_cond_kwargs=added).sample
    output.backward(inputs["output_grad"])
    results = {"output": output.detach(), "latents_grad": latents.grad}
    results |= {f"grad/{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return results


def relative_error(a, b):
    """Norm of the difference relative to the norm of the reference."""
    return (a.double() - b.double()).norm().item() / max(b.double().norm().item(), 1e-12)


def run_probe(folder, inputs, scratch):
    save_file({k: v.contiguous() for k, v in inputs.items()}, scratch / "in.safetensors")
    probe("unet", folder, scratch / "in.safetensors", scratch / "out.safetensors")
    # A copy, since loaded tensors are views of the file, which the next run overwrites.
    return {k: v.clone() for k, v in load_file(scratch / "out.safetensors").items()}


def compare_one(ours, theirs, scale):
    """Error of one gradient.

    One that is zero but for rounding (of a bias before a norm) is measured against `scale`, the
    largest root mean square of all gradients.
    """
    assert ours.shape == theirs.shape
    floor = 1e-3 * scale * theirs.numel() ** 0.5
    return (ours.double() - theirs.double()).norm().item() / max(theirs.double().norm().item(), floor)


def compare(ours, theirs):
    """(error of the output, worst error of a gradient, its name)"""
    assert ours.keys() == theirs.keys()
    keys = [k for k in theirs if k != "output"]
    scale = max(theirs[k].double().square().mean().sqrt().item() for k in keys)
    worst = max((compare_one(ours[k], theirs[k], scale), k) for k in keys)
    return relative_error(ours["output"], theirs["output"]), *worst


def write_config(path, config):
    path.write_text(json.dumps(config))
    return path
