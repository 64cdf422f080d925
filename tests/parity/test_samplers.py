"""Samplers against diffusers' schedulers: whole denoising loops, with the same noise injected."""
import importlib
import os
import pathlib
import subprocess

import diffusers
import pytest
import torch
from diffusers import (DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler,
                       HeunDiscreteScheduler, PNDMScheduler)
from safetensors.torch import load_file, save_file

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "diffusion_probe"
CLASSES = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "euler": EulerDiscreteScheduler,
           "euler_ancestral": EulerAncestralDiscreteScheduler, "heun": HeunDiscreteScheduler,
           "dpmpp_2m": DPMSolverMultistepScheduler}
BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
STEPS_MAX = 40


def inputs():
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    tensors = dict(noise=draw(3, 4, 6, 5), condition=draw(3, 7, 8), unconditional=draw(3, 7, 8))
    tensors.update({f"noise/{step}": draw(3, 4, 6, 5) for step in range(1, STEPS_MAX + 1)})
    return tensors


def model(x, t, condition):
    """As WaveModel in diffusion_probe.cc."""
    return torch.sin(0.7 * x) + (torch.as_tensor(t).float() / 5000 + condition.mean((1, 2))).view(-1, 1, 1, 1)


def rescale_noise_cfg(guided, conditional, phi):
    dims = list(range(1, guided.ndim))
    rescaled = guided * (conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True))
    return phi * rescaled + (1 - phi) * guided


def reference(scheduler, tensors, steps, guidance, rescale, monkeypatch):
    """The loop of diffusers' StableDiffusionPipeline; returns latents and the timesteps of its model calls."""
    step = 0
    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: tensors[f"noise/{step}"])
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None  # Timesteps may repeat.
    x = tensors["noise"] * getattr(scheduler, "init_noise_sigma", 1.0)
    calls = []
    for t in scheduler.timesteps:
        step += 1
        model_input = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output = model(model_input, t, tensors["condition"])
        if guidance != 1:
            empty = model(model_input, t, tensors["unconditional"])
            conditional = output
            output = empty + guidance * (conditional - empty)
            if rescale:
                output = rescale_noise_cfg(output, conditional, rescale)
        calls.append(float(t))
        x = scheduler.step(output, t, x).prev_sample
    return x, calls


def compare(tmp_path, monkeypatch, config, sampler, steps, scheduler=None, guidance=3.0, rescale=0.0, karras=0,
            apart=2e-3, **changes):
    """`scheduler`: diffusers' own; None: the sampler's class, as the file and `changes` say."""
    config.save_pretrained(tmp_path)
    if scheduler is None:
        scheduler = CLASSES[sampler].from_config(type(config).load_config(tmp_path), **changes)
    tensors = inputs()
    save_file(tensors, tmp_path / "in.safetensors")
    options = dict(folder=tmp_path, sampler=sampler, steps=steps, guidance=guidance, rescale=rescale, karras=karras)
    subprocess.run([PROBE, "sample", tmp_path / "in.safetensors", tmp_path / "out.safetensors",
                    *(f"{k}={v}" for k, v in options.items())], check=True, timeout=100)
    ours = load_file(tmp_path / "out.safetensors")
    theirs, calls = reference(scheduler, tensors, steps, guidance, rescale, monkeypatch)
    torch.testing.assert_close(ours["timesteps"], torch.tensor(calls, dtype=torch.float64), rtol=1e-4, atol=apart)
    scale = theirs.abs().max()
    assert torch.isfinite(scale) and (ours["latents"] - theirs).abs().max() <= 1e-4 * scale


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", CLASSES)
def test_samplers_are_those_of_diffusers(tmp_path, monkeypatch, sampler, prediction, spacing):
    if (sampler, prediction) == ("euler_ancestral", "sample"):
        pytest.skip("diffusers has no ancestral step for sample prediction")
    config = DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1, set_alpha_to_one=False,
                           prediction_type=prediction, timestep_spacing=spacing)
    compare(tmp_path, monkeypatch, config, sampler, 13)


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("sampler", CLASSES)
def test_what_the_file_leaves_open_is_the_class_default(tmp_path, monkeypatch, sampler, steps):
    # As Stable Diffusion 1.5 ships: a PNDM config without spacing.
    config = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    config.save_pretrained(tmp_path)
    file = tmp_path / PNDMScheduler.config_name
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "timestep_spacing" not in line))
    monkeypatch.setattr(config, "save_pretrained", lambda _: None)
    changes = {"clip_sample": False} if sampler in ("ddpm", "ddim") else {}
    compare(tmp_path, monkeypatch, config, sampler, steps, **changes)


@pytest.mark.parametrize("sampler,betas", [("euler", BETAS), ("heun", BETAS), ("dpmpp_2m", BETAS),
                                           ("dpmpp_2m", dict(beta_schedule="squaredcos_cap_v2")),
                                           ("euler", dict(beta_schedule="linear"))])
@pytest.mark.parametrize("steps", [5, 20])
def test_karras_sigmas(tmp_path, monkeypatch, sampler, betas, steps):
    config = DDIMScheduler(**betas, clip_sample=False, prediction_type="v_prediction")
    # For cosine betas DPM-Solver's timesteps are cut to integers, in float32 there: 998.9999 may be 999.
    apart = 1.0 if betas["beta_schedule"] == "squaredcos_cap_v2" else 2e-3
    compare(tmp_path, monkeypatch, config, sampler, steps, karras=1, apart=apart, use_karras_sigmas=True)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "euler_ancestral", "dpmpp_2m"])
def test_zero_terminal_snr(tmp_path, monkeypatch, sampler):
    config = DDIMScheduler(**BETAS, clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True,
                           timestep_spacing="trailing", steps_offset=1, set_alpha_to_one=False)
    compare(tmp_path, monkeypatch, config, sampler, 25, guidance=5.0, rescale=0.7)


@pytest.mark.parametrize("config,sampler", [
    (DDPMScheduler(**BETAS, clip_sample=False, variance_type="fixed_large"), "ddpm"),
    (DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True, steps_offset=0), "ddim"),
    (EulerDiscreteScheduler(**BETAS, final_sigmas_type="sigma_min", timestep_spacing="leading"), "euler"),
    (DPMSolverMultistepScheduler(**BETAS, final_sigmas_type="sigma_min", use_karras_sigmas=True), "dpmpp_2m"),
])
@pytest.mark.parametrize("steps", [10, 24])
def test_rules_of_the_file(tmp_path, monkeypatch, config, sampler, steps):
    compare(tmp_path, monkeypatch, config, sampler, steps)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 9, 30])
@pytest.mark.parametrize("sampler", ["auto", "flow_euler", "euler", "heun"])
def test_flow(tmp_path, monkeypatch, sampler, steps, shift):
    config = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs = FlowMatchHeunDiscreteScheduler(shift=shift) if sampler == "heun" else config
    if sampler == "heun" and shift != 1:
        pytest.skip("diffusers' Heun for flow shifts its last sigma once less than its Euler")
    compare(tmp_path, monkeypatch, config, sampler, steps, theirs, rescale=0.5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_by_dpm_solver(tmp_path, monkeypatch, shift):
    theirs = DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction")
    compare(tmp_path, monkeypatch, FlowMatchEulerDiscreteScheduler(shift=shift), "dpmpp_2m", 12, theirs)


@pytest.mark.parametrize("options,word", [
    (dict(sampler="ddim", steps=1001), "sample.steps = 1001"), (dict(sampler="flow_euler", steps=5), "flow_euler"),
    (dict(sampler="ddim", steps=5, karras=1), "sample.sigmas"),
])
def test_settings_that_do_not_go_together(tmp_path, options, word):
    save_file(inputs(), tmp_path / "in.safetensors")
    options = dict(dict(folder=tmp_path, guidance=1, rescale=0, karras=0), **options)
    done = subprocess.run([PROBE, "sample", tmp_path / "in.safetensors", tmp_path / "out.safetensors",
                           *(f"{k}={v}" for k, v in options.items())], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and word in done.stderr


def test_diffusers_is_the_pinned_version():
    assert diffusers.__version__ == "0.42.1"
