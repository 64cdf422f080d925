"""The demo's base: a UNet of 5.6 million parameters that trireme itself trains on the colour emoji alone."""

import json
import shutil
import subprocess
from pathlib import Path

from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_configs(base: Path, width: int) -> None:
    """BASE/{model_index.json, scheduler/, unet/config.json}; the UNet's weights come from the training."""
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(base / "scheduler")
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[64, 96, 128],
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=width,
    )
    print(f"unet: {sum(p.numel() for p in unet.parameters())} parameters")
    unet.save_config(base / "unet")
    (base / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")


def pack(trireme: Path, base: Path, pictures: Path, out: Path) -> None:
    command = [trireme, "pack", "--model", base, "--images", pictures, "--out", out, "--resolution", "64"]
    subprocess.run([str(word) for word in command], check=True)


def train(trireme: Path, config: Path, base: Path, data: Path, run_dir: Path, ranks: int, keys: list[str]) -> Path:
    """Runs, or goes on with, the base's training; returns its newest checkpoint."""
    settings = [f"model.config={base / 'unet' / 'config.json'}", f"data.train=['{data}']", f"sample.vae={base}", *keys]
    command = [str(trireme), "launch", str(config), "-n", str(ranks), "--run-dir", str(run_dir)]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True)
    return run_dir / "checkpoints" / "latest"


def adopt(checkpoint: Path, base: Path) -> None:
    """Puts the checkpoint's averaged weights, in half precision, into BASE/unet."""
    tensors = load_file(checkpoint / "ema" / "diffusion_pytorch_model.safetensors")
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, base / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def ship(base: Path, data: dict[str, Path], licences: dict[str, Path], demo: Path) -> None:
    """Copies what the demo needs into the folder DEMO and says how large it is."""
    shutil.copytree(base, demo / "base", dirs_exist_ok=True)
    for name, file in data.items():
        shutil.copyfile(file, demo / f"{name}.h5")
    for name, file in licences.items():
        shutil.copyfile(file, demo / f"LICENSE-{name}.txt")
    size = 0
    for file in demo.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
        size += 0 if file.is_dir() else file.stat().st_size
    print(f"{demo}: {size / 1e6:.1f} MB")
