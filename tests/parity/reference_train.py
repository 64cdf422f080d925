"""An independent, single-process training script in PyTorch and diffusers that does what `trireme train` does.

It shares no code with trireme: configuration by tomllib, data by h5py, its own Philox, diffusers' UNet and noise
schedule, torch.optim.AdamW. Only the order of the samples is taken from `trireme inspect CONFIG --order 1:N`.

    python reference_train.py CONFIG ORDER.tsv OUT_DIR
"""
import json
import math
import pathlib
import statistics
import sys
import tomllib

import h5py
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

TIMESTEP, NOISE, AUGMENTATION, CAPTION, OFFSET, POSTERIOR, TIMESTEP_OFFSET = 1, 2, 3, 4, 5, 8, 24


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., 2011) of counters (4, n) under one key."""
    c = [np.asarray(x, dtype=np.uint64) for x in counter]
    k0, k1 = (np.uint64(x) for x in key)
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> shift) ^ c[1] ^ k0, p1 & mask, (p0 >> shift) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & mask, (k1 + np.uint64(0xBB67AE85)) & mask
    return np.stack(c)


def words(seed, stream, epoch, sample, blocks=1):
    """(4 * blocks) words of a sample's stream."""
    block = np.arange(blocks, dtype=np.uint64)
    full = np.ones(blocks, dtype=np.uint64)
    high = epoch + ((sample >> 32) << 24)
    out = philox([block, full * np.uint64(stream), full * np.uint64(high), full * np.uint64(sample & 0xFFFFFFFF)],
                 (seed & 0xFFFFFFFF, seed >> 32))
    return out.T.reshape(-1)


def uniform(word):
    return (np.asarray(word, dtype=np.float64) + 0.5) / 2.0**32


def normals(seed, stream, epoch, sample, count):
    u = uniform(words(seed, stream, epoch, sample, (count + 3) // 4)).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log(u[:, 0])), 2 * np.pi * u[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count].astype(np.float32)


class Dataset:
    """Samples of root-bucket files, in the order listed; the first has number `first`."""

    def __init__(self, paths, first=0):
        self.first = first
        self.rows = []
        for path in paths:
            f = h5py.File(path, "r")
            self.rows += [(f, row) for row in range(len(f["latents"]))]

    def latent(self, sample, seed, epoch):
        f, row = self.rows[sample - self.first]
        stored = f["latents"][row].astype(np.float32)
        if f["latents"].attrs.get("kind") == "moments":
            mean, log_variance = np.split(stored, 2)
            noise = normals(seed, POSTERIOR, epoch, sample, mean.size).reshape(mean.shape)
            stored = mean + np.exp(0.5 * np.clip(log_variance, -30, 20)) * noise
        return (stored - f.attrs.get("shift_factor", 0.0)) * f.attrs["scaling_factor"]

    def text(self, sample, seed, epoch, dropout):
        f, row = self.rows[sample - self.first]
        captions = np.atleast_1d(f["caption_index"][row]) if "caption_index" in f else np.zeros(1, int)
        captions = captions[captions >= 0]
        word = words(seed, CAPTION, epoch, sample)
        index = captions[int(word[1]) * len(captions) >> 32] if len(captions) else 0
        return f["text/prompt_embeds"][0 if uniform(word[0]) < dropout else index].astype(np.float32)


def timestep(config, timesteps, step, position, batch, epoch, sample):
    seed, objective = config["run"].get("seed", 42), config.get("objective", {})
    if objective.get("timestep_sampling") == "low_discrepancy":
        word = philox([[step >> 32], [TIMESTEP_OFFSET], [step & 0xFFFFFFFF], [0]], (seed & 0xFFFFFFFF, seed >> 32))[0, 0]
        x = (float(uniform(word)) + position / batch) % 1.0
    else:
        word = words(seed, TIMESTEP, epoch, sample)[0]
        x = float(uniform(word))
        if not {"timestep_distribution", "timestep_range"} & objective.keys():
            return int(word) * timesteps >> 32
    if objective.get("timestep_distribution") == "logit_normal":
        z = statistics.NormalDist(objective.get("logit_mean", 0.0), objective.get("logit_std", 1.0)).inv_cdf(x)
        x = 1 / (1 + math.exp(-z))
    low, high = objective.get("timestep_range", [0.0, 1.0])
    return min(math.floor(timesteps * (low + (high - low) * x)), timesteps - 1)


def crop(x, config, seed, epoch, sample):
    side = config["data"].get("crop", 0)
    if not side:
        return x
    word = words(seed, AUGMENTATION, epoch, sample)
    top, left = (int(word[i]) * (size - side + 1) >> 32 for i, size in ((1, x.shape[1]), (2, x.shape[2])))
    return x[:, top:top + side, left:left + side]


def make_batch(data, config, timesteps, step, draws):
    seed = config["run"].get("seed", 42)
    options, objective = config["data"], config.get("objective", {})
    batch = {"x": [], "noise": [], "t": [], "text": []}
    for position, (epoch, sample) in enumerate(draws):
        x = crop(data.latent(sample, seed, epoch), config, seed, epoch, sample)
        if uniform(words(seed, AUGMENTATION, epoch, sample)[0]) < options.get("flip", 0.0):
            x = x[:, :, ::-1]
        noise = normals(seed, NOISE, epoch, sample, x.size).reshape(x.shape)
        shift = normals(seed, OFFSET, epoch, sample, x.shape[0])[:, None, None]
        batch["x"].append(np.ascontiguousarray(x, dtype=np.float32))
        batch["noise"].append(noise + np.float32(objective.get("noise_offset", 0.0)) * shift)
        batch["t"].append(timestep(config, timesteps, step, position, len(draws), epoch, sample))
        batch["text"].append(data.text(sample, seed, epoch, options.get("caption_dropout", 0.0)))
    return {k: torch.from_numpy(np.stack(v)) for k, v in batch.items()}


def make_scheduler(config):
    noise = config.get("noise", {})
    return DDPMScheduler(
        num_train_timesteps=len(noise["trained_betas"]) if "trained_betas" in noise else noise.get("timesteps", 1000), beta_schedule=noise.get("schedule", "scaled_linear"),
        beta_start=noise.get("beta_start", 0.00085), beta_end=noise.get("beta_end", 0.012),
        trained_betas=noise.get("trained_betas"),
        rescale_betas_zero_snr=noise.get("rescale_zero_terminal_snr", False))


def sample_losses(model, scheduler, objective, batch):
    """Each sample's loss, weighted by min-SNR (Hang et al., 2023)."""
    prediction = objective.get("prediction", "epsilon")
    output = model(scheduler.add_noise(batch["x"], batch["noise"], batch["t"]), batch["t"], batch["text"]).sample
    velocity = scheduler.get_velocity(batch["x"], batch["noise"], batch["t"])
    target = {"epsilon": batch["noise"], "v_prediction": velocity, "sample": batch["x"]}[prediction]
    if objective.get("loss") == "huber":
        errors = torch.nn.functional.huber_loss(output, target, reduction="none", delta=objective.get("huber_delta", 1.0))
    else:
        errors = (output - target).square()
    losses = errors.mean((1, 2, 3))
    gamma = objective.get("snr_gamma", 0.0)
    if gamma > 0:
        alpha = scheduler.alphas_cumprod[batch["t"]].double()
        snr = alpha / (1 - alpha)
        least = snr.clamp(max=gamma)
        losses = losses * {"epsilon": least / snr, "v_prediction": least / (snr + 1), "sample": least}[prediction]
    return losses


def learning_rate(config, base, step, steps):
    schedule = config.get("lr_schedule", {})
    u = step - 1
    warmup = schedule.get("warmup_steps", 0 if "warmup_fraction" in schedule else 100)
    warmup = warmup or math.ceil(schedule.get("warmup_fraction", 0.0) * steps)
    if u < warmup:
        return base * (u + 1) / warmup
    p, least = (u - warmup) / (steps - warmup), schedule.get("min_lr_ratio", 0.0)
    shape = {"cosine": (1 + math.cos(math.pi * p)) / 2, "linear": 1 - p,
             "cosine_with_restarts": (1 + math.cos(math.pi * (p * schedule.get("cycles", 1) % 1))) / 2,
             "inverse_sqrt": math.sqrt(warmup / u) if warmup else None}.get(schedule.get("name", "cosine"))
    return base if shape is None else base * (least + (1 - least) * shape)


def base_rate(config, batch):
    optim = config["optim"]
    if not optim.get("lr_base_batch"):
        return optim["lr"]
    k = batch / optim["lr_base_batch"]
    power = {"linear": 1.0, "sqrt": 0.5, "power": optim.get("lr_scaling_power", 0.6)}
    return optim["lr"] * k ** power[optim.get("lr_scaling", "linear")]


def read_order(path, steps):
    """The (epoch, sample) of each step, by position."""
    order = [{} for _ in range(steps)]
    for line in pathlib.Path(path).read_text().splitlines():
        fields = line.split("\t")
        if not fields[0].isdigit():
            continue  # A heading.
        step, position, _, epoch, sample = map(int, fields)
        order[step - 1][position] = (epoch, sample)
    return [[row[p] for p in range(len(row))] for row in order]


def prior_draws(prior, step, batch):
    """As many samples as the batch, of a set in index order."""
    places = range((step - 1) * batch, step * batch)
    return [(place // len(prior.rows), prior.first + place % len(prior.rows)) for place in places]


def global_batch(config, samples):
    """Of a step before which so many samples were consumed."""
    size = config["batch"]["global"]
    for at, to in zip(config["batch"].get("grow_at", []), config["batch"].get("grow_to", [])):
        size = to if samples >= at else size
    return size


def parameter_groups(tensors, optim):
    if optim.get("decay_norms_and_biases", True):
        return tensors
    return [{"params": [p for p in tensors if p.dim() > 1]},
            {"params": [p for p in tensors if p.dim() <= 1], "weight_decay": 0.0}]


def norm_of(tensors):
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in tensors))


def train(config, order_file, steps, prepare=lambda model: None, skipped=()):
    """`prepare` changes the model before its parameters are collected; only those that need gradients train. Of the
    `skipped` steps everything happens but the update."""
    torch.set_num_threads(1)
    model = UNet2DConditionModel.from_pretrained(config["model"]["weights"], subfolder="unet").train()
    prepare(model)
    trained = {k: v for k, v in model.named_parameters() if v.requires_grad}
    scheduler = make_scheduler(config)
    optim, objective = config["optim"], config.get("objective", {})
    data = Dataset(config["data"]["train"])
    groups = parameter_groups(list(trained.values()), optim)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=optim.get("betas", [0.9, 0.999]),
                                  eps=optim.get("eps", 1e-8), weight_decay=optim.get("weight_decay", 0.01))
    prior = Dataset(config["data"].get("prior", []), len(data.rows))
    average = {k: v.detach().clone() for k, v in trained.items()}
    lines, samples, updates = [], 0, 0
    for step, draws in enumerate(read_order(order_file, steps), 1):
        assert len(draws) == global_batch(config, samples), (step, len(draws))
        samples += len(draws)
        optimizer.zero_grad()
        batch = make_batch(data, config, len(scheduler.alphas_cumprod), step, draws)
        loss = sample_losses(model, scheduler, objective, batch).mean()
        if prior.rows:
            batch = make_batch(prior, config, len(scheduler.alphas_cumprod), step, prior_draws(prior, step, len(draws)))
            weight = config["data"].get("prior_weight", 1.0)
            loss = loss + weight * sample_losses(model, scheduler, objective, batch).mean()
        loss.backward()
        line = {"step": step, "loss": loss.item(), "grad_norm": norm_of(trained.values()), "samples": samples}
        if optim.get("max_grad_value", 0.0) > 0:
            torch.nn.utils.clip_grad_value_(trained.values(), optim["max_grad_value"])
            line["bounded_grad_norm"] = norm_of(trained.values())
        limit = optim.get("max_grad_norm", 1.0)
        if limit > 0:
            torch.nn.utils.clip_grad_norm_(trained.values(), limit)
        lr = learning_rate(config, base_rate(config, len(draws)), step, config["run"]["steps"])
        for group in optimizer.param_groups:
            group["lr"] = lr
        lines.append(line | {"lr": lr})
        if step in skipped:
            continue
        optimizer.step()
        updates += 1
        decay = min(config.get("ema", {}).get("decay", 0.0), (1 + updates) / (10 + updates))
        with torch.no_grad():
            for k, v in trained.items():
                average[k].mul_(decay).add_(v, alpha=1 - decay)
    return lines, {k: v.detach().contiguous() for k, v in trained.items()}, average


def main(config_file, order_file, out):
    config = tomllib.loads(pathlib.Path(config_file).read_text())
    lines, weights, average = train(config, order_file, config["run"]["steps"])
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_file(weights, out / "weights.safetensors")
    save_file(average, out / "ema.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
