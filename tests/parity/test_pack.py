"""`trireme pack` against Pillow, diffusers and transformers, at 1, 2 and 3 ranks."""
import hashlib
import json
import os
import random
import subprocess

import h5py
import numpy as np
import pytest
import torch
from clip_vocabulary import write_tokenizer_folder
from diffusers import AutoencoderKL
from encoders import randomize
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TRIREME = os.environ["TRIREME"]
RESOLUTION = 32
HALF_STEP = 2.0**-10  # Of rounding to half precision, relative, with room for float32's own error.
CAPTIONS = ["a red square", "  Two WORDS\u00a0and \u732b, unchanged ", "a red square", None, "first line\nsecond", ""]


def mpirun(ranks, *arguments, check=True, threads=1):
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
               "-np", str(ranks), TRIREME, "pack", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert not check or result.returncode == 0, result
    return result


def make_picture(rng, index):
    width, height = rng.randint(20, 90), rng.randint(20, 90)
    mode = ["RGB", "RGBA", "L", "P"][index % 4]
    noise = np.random.default_rng(index).integers(0, 256, (max(height // 6, 1), max(width // 6, 1), 4), np.uint8)
    return Image.fromarray(noise, "RGBA").resize((width, height), Image.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    vae = AutoencoderKL(block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8, latent_channels=4,
                        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
                        scaling_factor=0.5, shift_factor=0.25)
    randomize(vae, 1).save_pretrained(folder / "vae")
    config = CLIPTextConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64, eos_token_id=2)
    randomize(CLIPTextModel(config), 2).save_pretrained(folder / "text_encoder")
    write_tokenizer_folder(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = random.Random(3)
    for i in range(39):
        picture = make_picture(rng, i)
        name = f"{'b' if i % 2 else 'B'}{i:02d}é"
        if i % 5 == 4:
            picture.convert("RGB").save(folder / f"{name}.JPG", format="JPEG")
        else:
            picture.save(folder / f"{name}.png")
        caption = CAPTIONS[i % len(CAPTIONS)]
        if caption is not None:
            (folder / f"{name}.txt").write_text(caption, encoding="utf-8")
    return folder


def names_of(pictures):
    return sorted((p.name for p in pictures.iterdir() if p.suffix.lower() in (".png", ".jpg")), key=os.fsencode)


def caption_of(pictures, name):
    file = (pictures / name).with_suffix(".txt")
    return file.read_text(encoding="utf-8") if file.exists() else ""


def pixels_of(file, resolution=RESOLUTION):
    """As the interface says it, by Pillow: (3, H, W) in [-1, 1]."""
    image = Image.open(file).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    scale = resolution / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, image.height), Image.LANCZOS).resize((width, height), Image.LANCZOS)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    image = image.crop((left, top, left + resolution, top + resolution))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@pytest.fixture(scope="module")
def packed(model, pictures, tmp_path_factory):
    file = tmp_path_factory.mktemp("packed") / "one.h5"
    mpirun(1, "--model", model, "--images", pictures, "--out", file, "--resolution", RESOLUTION)
    return file


@torch.no_grad()
def test_latents_are_the_moments_of_diffusers(model, pictures, packed):
    names = names_of(pictures)
    vae = AutoencoderKL.from_pretrained(model / "vae")
    expected = vae.encode(torch.stack([pixels_of(pictures / n) for n in names])).latent_dist.parameters.numpy()
    with h5py.File(packed) as file:
        assert file.attrs["format"] == "trireme-latents" and file.attrs["version"] == 1
        assert file.attrs["scaling_factor"] == 0.5 and file.attrs["shift_factor"] == 0.25
        assert file["latents"].attrs["kind"] == "moments"
        assert file["latents"].dtype == np.float16 and file["latents"].chunks is None
        assert [i.decode() for i in file["ids"][:]] == names
        latents = file["latents"][:].astype(np.float32)
    np.testing.assert_allclose(latents, expected, rtol=HALF_STEP, atol=1e-4)


@torch.no_grad()
def test_text_is_stored_once_for_each_caption(model, pictures, packed):
    names = names_of(pictures)
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(model / "text_encoder").eval()
    with h5py.File(packed) as file:
        captions = [c.decode() for c in file["text/captions"][:]]
        embeds = file["text/prompt_embeds"][:].astype(np.float32)
        index = file["caption_index"][:]
    assert captions[0] == "" and len(set(captions)) == len(captions) == len({"", *filter(None, CAPTIONS)})
    assert [captions[i] for i in index] == [caption_of(pictures, n) for n in names]
    ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    expected = encoder(ids).last_hidden_state.numpy()
    np.testing.assert_allclose(embeds, expected, rtol=HALF_STEP, atol=1e-3)


def test_provenance_names_the_weights(model, packed):
    with h5py.File(packed) as file:
        attributes = dict(file.attrs)
        weights = (model / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
        assert attributes["vae_sha256"] == hashlib.sha256(weights).hexdigest()
        weights = (model / "text_encoder" / "model.safetensors").read_bytes()
        assert attributes["text_encoder_sha256"] == hashlib.sha256(weights).hexdigest()
        assert {"resolution", "crop", "resize", "text_encoder", "text_hidden_layer"} <= set(attributes)
        assert file["xxh3"].shape == (file["latents"].shape[0],) and file["xxh3"].dtype == np.uint64


def test_the_file_verifies(packed):
    subprocess.run([TRIREME, "inspect", packed, "--verify"], check=True, timeout=120)


@pytest.mark.parametrize(("ranks", "threads"), [(1, 3), (2, 1), (3, 2)])
def test_any_number_of_ranks_and_threads_writes_the_same_bytes(model, pictures, packed, tmp_path, ranks, threads):
    file = tmp_path / "many.h5"
    arguments = ["--model", model, "--images", pictures, "--out", file, "--resolution", RESOLUTION]
    mpirun(ranks, *arguments, threads=threads)
    assert file.read_bytes() == packed.read_bytes()
    assert os.listdir(tmp_path) == ["many.h5"]


def test_sample_kind_draws_from_the_posterior(model, pictures, packed, tmp_path):
    file = tmp_path / "sample.h5"
    mpirun(2, "--model", model, "--images", pictures, "--out", file, "--resolution", RESOLUTION, "--kind", "sample")
    with h5py.File(packed) as moments, h5py.File(file) as sample:
        mean, logvar = np.split(moments["latents"][:].astype(np.float64), 2, axis=1)
        normals = (sample["latents"][:] - mean) / np.exp(0.5 * np.clip(logvar, -30, 20))
        assert "kind" not in sample["latents"].attrs or sample["latents"].attrs["kind"] != "moments"
    assert normals.shape == mean.shape
    assert abs(normals.mean()) < 0.05 and abs(normals.std() - 1) < 0.05


def test_captions_from_jsonl(model, pictures, tmp_path):
    names = names_of(pictures)
    lines = [{"file_name": n, "text": f"caption of {i}", "width": 3} for i, n in enumerate(names[:-1])]
    lines.append({"file_name": names[0], "text": "another one"})
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    result = mpirun(2, "--model", model, "--images", pictures, "--out", tmp_path / "a.h5", "--resolution", RESOLUTION,
                    "--captions", tmp_path / "captions.jsonl")
    with h5py.File(tmp_path / "a.h5") as file:
        captions = [c.decode() for c in file["text/captions"][:]]
        index = file["caption_index"][:]
    assert [captions[i] for i in index[0]] == ["caption of 0", "another one"]
    assert captions[index[1, 0]] == "caption of 1" and index[1, 1] == -1
    assert list(index[-1]) == [0, -1]
    assert "1 of 39 pictures have no caption" in result.stderr


def damage(pictures, folder):
    folder.mkdir()
    for i, name in enumerate(names_of(pictures)[:7]):
        data = (pictures / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2] if i in (1, 5) else data)
    (folder / "not a picture.png").write_text("hello")
    (folder / "caption.png").write_bytes((folder / names_of(pictures)[0]).read_bytes())
    (folder / "caption.txt").write_bytes(b"caf\xe9")
    return [names_of(pictures)[1], names_of(pictures)[5], "not a picture.png", "caption.png"]


@pytest.mark.parametrize("ranks", [1, 3])
def test_unreadable_pictures_are_named_and_skipped_or_fatal(model, pictures, tmp_path, ranks):
    bad = damage(pictures, tmp_path / "damaged")
    arguments = ["--model", model, "--images", tmp_path / "damaged", "--out", tmp_path / "a.h5", "--resolution", RESOLUTION]
    result = mpirun(ranks, *arguments, check=False)
    assert result.returncode == 3 and "4 of 9" in result.stderr, result
    assert not list(tmp_path.glob("a.h5*"))
    result = mpirun(ranks, *arguments, "--on-error", "skip")
    for name in bad:
        assert name in result.stderr
    assert "4 of 9" in result.stderr
    with h5py.File(tmp_path / "a.h5") as file:
        assert [i.decode() for i in file["ids"][:]] == [n for n in sorted(os.listdir(tmp_path / "damaged"), key=os.fsencode)
                                                        if n.lower().endswith((".png", ".jpg")) and n not in bad]


def test_a_model_without_text_packs_latents_alone(model, pictures, tmp_path):
    (tmp_path / "vae-only").mkdir()
    (tmp_path / "vae-only" / "vae").symlink_to(model / "vae")
    mpirun(2, "--model", tmp_path / "vae-only", "--images", pictures, "--out", tmp_path / "a.h5", "--resolution", RESOLUTION)
    with h5py.File(tmp_path / "a.h5") as file:
        assert "text" not in file and "caption_index" not in file and len(file["latents"]) == 39


def test_recursive_ids_are_relative_paths(model, pictures, tmp_path):
    (tmp_path / "in" / "x").mkdir(parents=True)
    name = names_of(pictures)[0]
    for place in ("in/z.png", "in/x/y.png"):
        (tmp_path / place).write_bytes((pictures / name).read_bytes())
    arguments = ["--model", model, "--images", tmp_path / "in", "--out", tmp_path / "a.h5", "--resolution", RESOLUTION]
    mpirun(1, *arguments, "--recursive")
    with h5py.File(tmp_path / "a.h5") as file:
        assert [i.decode() for i in file["ids"][:]] == ["x/y.png", "z.png"]


@pytest.mark.parametrize(("change", "code", "word"), [
    ({"--resolution": 30}, 2, "multiple of 4"), ({"--images": "nowhere"}, 3, "nowhere"), ({"--model": "nowhere"}, 3, "vae"),
    ({"--out": "nowhere/a.h5"}, 2, "nowhere"), ({"--kind": "mean"}, 2, "--kind"), ({"--captions": "nowhere"}, 3, "nowhere")])
def test_mistakes_end_all_ranks_with_one_message(model, pictures, tmp_path, change, code, word):
    options = {"--model": model, "--images": pictures, "--out": tmp_path / "a.h5", "--resolution": RESOLUTION, **change}
    result = mpirun(2, *(part for pair in options.items() for part in pair), check=False)
    assert result.returncode == code and word in result.stderr, result
    assert not list(tmp_path.iterdir())
