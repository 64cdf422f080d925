"""The demo's CLIP tokenizer with fewer merges and its small CLIPTextModel, trained to tell the pictures apart.

The tokenizer is CLIP's own with a subset of its merges: the first NUM_COMMON_MERGES and all that the captions need,
in CLIP's order. So a caption is cut into the same pieces as by the full vocabulary. The text model and a throw-away
network on the pictures are trained together, contrastively (Radford et al., 2021).
"""

import gzip
import importlib.util
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from demo_vae import load_pictures, to_float
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NUM_COMMON_MERGES = 2000
MAX_LENGTH = 16
WIDTH = 128
BATCH = 128
LR = 1e-3
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_merges() -> list[str]:
    """CLIP's 48,894 merges, from the list that open_clip_torch ships."""
    package = importlib.util.find_spec("open_clip").submodule_search_locations[0]
    lines = gzip.open(Path(package) / "bpe_simple_vocab_16e6.txt.gz").read().decode("utf-8").split("\n")
    return lines[1 : 49152 - 256 - 2 + 1]


def byte_symbols() -> list[str]:
    """The printable stand-ins for the 256 bytes, in the order of CLIP's vocabulary."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(folder: Path, merges: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    symbols = byte_symbols()
    words = symbols + [symbol + "</w>" for symbol in symbols]
    words += ["".join(merge.split()) for merge in merges] + [START, END]
    vocabulary = {word: i for i, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_LENGTH, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"errors": "replace"}, indent=2) + "\n")


def needed_merges(tokenizer: CLIPTokenizer, captions: list[str], merges: list[str]) -> list[str]:
    """The common merges and those by which the captions' tokens are made, in CLIP's order."""
    by_result = {"".join(merge.split()): merge for merge in merges}
    wanted = set(merges[:NUM_COMMON_MERGES])
    pending = {token for caption in captions for token in tokenizer.tokenize(caption)}
    while pending:
        token = pending.pop()
        merge = by_result.get(token)
        if merge is not None:
            wanted.add(merge)
            pending.update(merge.split())
    return [merge for merge in merges if merge in wanted]


def build_tokenizer(folder: Path, captions: list[str], work: Path) -> CLIPTokenizer:
    merges = clip_merges()
    write_tokenizer(work / "tokenizer_full", merges)
    full = CLIPTokenizer.from_pretrained(work / "tokenizer_full")
    if full("a photo of a cat").input_ids != [49406, 320, 1125, 539, 320, 2368, 49407]:
        raise RuntimeError("open_clip_torch's merges do not give CLIP's vocabulary")
    write_tokenizer(folder, needed_merges(full, captions, merges))
    reduced = CLIPTokenizer.from_pretrained(folder)
    for caption in captions:
        if reduced.tokenize(caption) != full.tokenize(caption):
            raise RuntimeError(f"the reduced tokenizer cuts '{caption}' differently")
    longest = max(len(reduced(caption).input_ids) for caption in captions)
    print(f"tokenizer: {len(reduced)} tokens, longest caption {longest} of {MAX_LENGTH}")
    return reduced


def make_text_model(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_picture_model() -> nn.Module:
    layers = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU()]
    return nn.Sequential(nn.AvgPool2d(2), *layers, nn.Flatten(), nn.Linear(128 * 4, WIDTH))


def caption_tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    ).input_ids


def train(model: CLIPTextModel, tokens: torch.Tensor, pictures: torch.Tensor, steps: int) -> None:
    """tokens: (N, L); pictures: (N, 3, 64, 64) uint8, row by row the picture of that caption."""
    generator = torch.Generator().manual_seed(3)
    eyes = make_picture_model()
    scale = nn.Parameter(torch.tensor(2.0))
    parameters = [*model.parameters(), *eyes.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=0.1)
    for step in range(steps):
        rows = torch.randperm(len(tokens), generator=generator)[:BATCH]
        seen = F.normalize(eyes(to_float(pictures[rows])), dim=-1)
        read = F.normalize(model(tokens[rows]).pooler_output, dim=-1)
        scores = scale.exp() * read @ seen.T
        target = torch.arange(len(rows))
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step + 1 == steps:
            right = (scores.argmax(1) == target).float().mean()
            print(f"text step {step + 1}/{steps} loss {loss:.4f} right {right:.3f}", flush=True)


def build(pictures_folder: Path, out: Path, work: Path, steps: int) -> None:
    """Writes OUT/tokenizer and OUT/text_encoder."""
    folders = [pictures_folder / name for name in ("noto", "symbola_train")]
    captions = [file.read_text(encoding="utf-8") for folder in folders for file in sorted(folder.glob("*.txt"))]
    tokenizer = build_tokenizer(out / "tokenizer", captions, work)
    torch.manual_seed(4)
    model = make_text_model(tokenizer)
    print(f"text encoder: {sum(p.numel() for p in model.parameters())} parameters")
    train(model, caption_tokens(tokenizer, captions), load_pictures(folders), steps)
    model.half().save_pretrained(out / "text_encoder")
