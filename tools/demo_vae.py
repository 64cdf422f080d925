"""The demo's small AutoencoderKL, 4 x 16 x 16 latents of 64 x 64 pictures, trained on both fonts.

Trainings write their state to WORK every minute and go on from there.
"""

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

KL_WEIGHT = 1e-3
EDGE_WEIGHT = 1.0
COLOUR_WEIGHT = 20.0
EMA_DECAY = 0.998
BATCH = 16
LR = 2e-3
DECODER_LR = 1e-3
DECODER_NOISE = 0.05


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[24, 48, 64],
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def load_pictures(folders: list[Path]) -> torch.Tensor:
    """All pictures in order of folder and name, (N, 3, 64, 64) uint8."""
    files = [file for folder in folders for file in sorted(folder.glob("*.png"))]
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def to_float(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.float() / 127.5 - 1.0


def varied(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture moved by up to 3 pixels, white coming in, perhaps flipped, its colour channels exchanged.

    The exchange makes all hues as frequent as the yellows and blues, which are learned alone without it.
    """
    padded = F.pad(pictures, (3, 3, 3, 3), value=1.0)
    out = torch.empty_like(pictures)
    for i in range(len(pictures)):
        x, y, flip = (int(torch.randint(0, n, (), generator=generator)) for n in (7, 7, 2))
        channels = torch.randperm(3, generator=generator)
        crop = padded[i, channels, y : y + pictures.shape[2], x : x + pictures.shape[3]]
        out[i] = crop.flip(-1) if flip else crop
    return out


def edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def coarse_colour(pictures: torch.Tensor) -> torch.Tensor:
    """What is not grey, in squares of 4: without it the rarer hues are learned long after the shapes."""
    return F.avg_pool2d(pictures - pictures.mean(dim=1, keepdim=True), 4)


def picture_loss(decoded: torch.Tensor, pictures: torch.Tensor):
    pixel = F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(decoded), edges(pictures), strict=True))
    colour = F.mse_loss(coarse_colour(decoded), coarse_colour(pictures))
    return pixel + EDGE_WEIGHT * edge + COLOUR_WEIGHT * colour, pixel


def autoencoder_loss(vae: AutoencoderKL, pictures: torch.Tensor, generator: torch.Generator):
    posterior = vae.encode(pictures).latent_dist
    mean, std = posterior.mean.float(), posterior.std.float()
    latents = mean + std * torch.randn(mean.shape, generator=generator)
    loss, pixel = picture_loss(vae.decode(latents).sample.float(), pictures)
    kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
    return loss + KL_WEIGHT * kl, pixel


def decoder_loss(vae: AutoencoderKL, pictures: torch.Tensor, generator: torch.Generator):
    """The encoder stays as it is; a little noise on its latents stands for the errors of a denoiser."""
    with torch.no_grad():
        mean = vae.encode(pictures).latent_dist.mean.float()
    noise = DECODER_NOISE / vae.config.scaling_factor * torch.randn(mean.shape, generator=generator)
    return picture_loss(vae.decode(mean + noise).sample.float(), pictures)


class Training:
    """A network, its running average, optimizer and generator, with what it takes to go on after a stop."""

    def __init__(self, vae: AutoencoderKL, parts: list[torch.nn.Module], lr: float, steps: int, state_file: Path):
        self.vae = vae.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.vae).requires_grad_(False)
        self.parameters = [parameter for part in parts for parameter in part.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)
        self.generator = torch.Generator().manual_seed(1)
        self.lr, self.steps, self.state_file = lr, steps, state_file
        self.first = 0
        if state_file.exists():
            state = torch.load(state_file, weights_only=True)
            self.vae.load_state_dict(state["vae"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.first = state["step"]

    def save(self, step: int) -> None:
        state = {"vae": self.vae.state_dict(), "average": self.average.state_dict(), "step": step}
        state |= {"optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state()}
        torch.save(state, self.state_file.with_suffix(".tmp"))
        self.state_file.with_suffix(".tmp").rename(self.state_file)

    def learning_rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / 50)
        return self.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def update(self, step: int, loss: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for slow, fast in zip(self.average.parameters(), self.vae.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - decay)

    def run(self, pictures: torch.Tensor, loss_of) -> AutoencoderKL:
        """Trains with loss_of(vae, batch, generator) -> (loss, pixel loss); returns the averaged network."""
        started = saved = time.time()
        for step in range(self.first, self.steps):
            rows = torch.randint(0, len(pictures), (BATCH,), generator=self.generator)
            batch = varied(to_float(pictures[rows]), self.generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss, pixel = loss_of(self.vae, batch, self.generator)
            self.update(step, loss)
            last = step + 1 == self.steps
            if step % 25 == 0 or last:
                rate = (time.time() - started) / (step + 1 - self.first)
                name = self.state_file.stem
                print(f"{name} step {step + 1}/{self.steps} loss {loss:.4f} pixel {pixel:.4f} {rate:.2f} s/step", flush=True)
            if last or time.time() - saved > 60:
                saved = time.time()
                self.save(step + 1)
        return self.average.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def measure_scale(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """One over the standard deviation of the posterior's samples."""
    generator = torch.Generator().manual_seed(2)
    latents = []
    for batch in pictures.split(64):
        posterior = vae.encode(to_float(batch)).latent_dist
        latents.append(posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator))
    return float(1 / torch.cat(latents).std())


@torch.no_grad()
def show_reconstructions(vae: AutoencoderKL, pictures: torch.Tensor, file: Path, count: int = 72) -> float:
    """Writes rows of pictures, each above its reconstruction; returns the PSNR in dB over those shown."""
    rows = torch.linspace(0, len(pictures) - 1, count).long()
    real = to_float(pictures[rows])
    decoded = vae.decode(vae.encode(real).latent_dist.mean).sample.clamp(-1, 1)
    lines = [torch.cat(list(x), dim=2) for pair in zip(real.split(18), decoded.split(18), strict=True) for x in pair]
    grid = ((torch.cat(lines, dim=1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    Image.fromarray(grid.numpy()).save(file)
    return float(10 * torch.log10(4 / F.mse_loss(decoded, real)))


def report(vae: AutoencoderKL, pictures_folder: Path, work: Path) -> None:
    for name in ("noto", "symbola_train", "symbola_val"):
        shown = load_pictures([pictures_folder / name])
        print(f"{name}: PSNR {show_reconstructions(vae, shown, work / f'vae_{name}.png'):.2f} dB", flush=True)


def training_pictures(pictures_folder: Path) -> torch.Tensor:
    return load_pictures([pictures_folder / name for name in ("noto", "symbola_train")])


def build(pictures_folder: Path, out: Path, work: Path, steps: int) -> None:
    """Writes the folder OUT, in half precision."""
    pictures = training_pictures(pictures_folder)
    torch.manual_seed(0)
    vae = make_vae()
    print(f"vae: {sum(p.numel() for p in vae.parameters())} parameters", flush=True)
    vae = Training(vae, [vae], LR, steps, work / "vae.pt").run(pictures, autoencoder_loss)
    vae.register_to_config(scaling_factor=round(measure_scale(vae, pictures), 5))
    print(f"scaling_factor {vae.config.scaling_factor}")
    report(vae, pictures_folder, work)
    vae.half().save_pretrained(out)


def sharpen(pictures_folder: Path, out: Path, work: Path, steps: int) -> None:
    """Trains the decoder of the folder OUT further; latents packed before stay valid."""
    vae = AutoencoderKL.from_pretrained(out, torch_dtype=torch.float32)
    decoder = [vae.decoder, vae.post_quant_conv]
    training = Training(vae, decoder, DECODER_LR, steps, work / "decoder.pt")
    vae = training.run(training_pictures(pictures_folder), decoder_loss)
    report(vae, pictures_folder, work)
    vae.half().save_pretrained(out)
