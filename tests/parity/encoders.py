"""What the tests of the VAE and the text encoder share."""
import os
import subprocess
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PROBE = Path(os.environ["TRIREME_BUILD"]) / "tests" / "model_probe"
TOLERANCE = 1e-5  # Relative to the largest element.


def probe(tmp_path, arguments, inputs):
    """Runs model_probe with `inputs` in a file and returns what it wrote."""
    save_file(inputs, tmp_path / "in.safetensors")
    command = [PROBE, *arguments, tmp_path / "in.safetensors", tmp_path / "out.safetensors"]
    subprocess.run(command, check=True, timeout=600)
    return load_file(tmp_path / "out.safetensors")


def probe_error(tmp_path, arguments, inputs):
    """The message of a run that must end with code 3."""
    save_file(inputs, tmp_path / "in.safetensors")
    command = [PROBE, *arguments, tmp_path / "in.safetensors", tmp_path / "out.safetensors"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 3, result
    return result.stderr


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def randomize(model, seed):
    """Weights that exercise everything: norms not one, biases not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    return model.eval()
