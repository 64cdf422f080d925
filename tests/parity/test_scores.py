"""Inception features, FID, KID and CLIP scores against pytorch-fid, torch-fidelity and transformers."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from fid_packages import import_without_torchvision, pytorch_fid_inception, random_inception_weights, torch_fidelity_inception
from clip_vocabulary import write_tokenizer_folder
from encoders import randomize
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_run import metrics, run, write_config, write_dataset
from test_checkpoint_verbs import write_pipeline

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "model_probe"
RELATIVE = 1e-3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    weights = random_inception_weights()
    file = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file(weights, file)
    return weights, file


def pictures(count, size, seed, contrast=1.0):
    """Smooth random pictures (count, 3, size, size) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (127.5 + 60 * contrast * smooth).clamp(0, 255).round().to(torch.uint8)


def write_pictures(folder, images):
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:04}.png")
    return folder


def reference_features(package, weights, images):
    with torch.no_grad():
        if package == "torch_fidelity":
            return torch_fidelity_inception(weights)(images)[0]
        return pytorch_fid_inception(weights)(images.float() / 255)[0].flatten(1)


@pytest.mark.parametrize("size", [64, 299, 310])
@pytest.mark.parametrize("package", ["pytorch_fid", "torch_fidelity"])
def test_inception_features(tmp_path, weights, package, size):
    images = pictures(2, size, size)
    save_file({"images": images}, tmp_path / "in.safetensors")
    subprocess.run([PROBE, "inception", weights[1], package, tmp_path / "in.safetensors", tmp_path / "out.safetensors"],
                   check=True, timeout=100)
    ours = load_file(tmp_path / "out.safetensors")["features"]
    theirs = reference_features(package, weights[0], images)
    assert ours.shape == theirs.shape == (2, 2048)
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm() and theirs.std(0).mean() > 1e-3


def test_inception_weights_under_the_names_of_pytorch_fid(tmp_path, weights):
    state = pytorch_fid_inception(weights[0]).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    save_file({"images": pictures(1, 64, 1)}, tmp_path / "in.safetensors")
    for name, file in (("a", weights[1]), ("b", tmp_path / "w.safetensors")):
        subprocess.run([PROBE, "inception", file, "pytorch_fid", tmp_path / "in.safetensors", tmp_path / name],
                       check=True, timeout=100)
    assert torch.equal(load_file(tmp_path / "a")["features"], load_file(tmp_path / "b")["features"])


def test_convert_inception(tmp_path, weights):
    torch.save(weights[0], tmp_path / "w.pth")
    root = pathlib.Path(__file__).resolve().parents[2]
    subprocess.run([root / ".venv/bin/python", root / "tools/convert_inception.py", tmp_path / "w.pth",
                    tmp_path / "w.safetensors"], check=True, timeout=100)
    converted = load_file(tmp_path / "w.safetensors")
    assert converted.keys() == weights[0].keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in weights[0].items())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    sets = pictures(12, 64, 1), pictures(10, 64, 2, contrast=0.7)
    return sets, (write_pictures(folder / "a", sets[0]), write_pictures(folder / "b", sets[1]))


def torch_fidelity_scores(features):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kernel_mmd

    fid = fid_statistics_to_metric(*(fid_features_to_statistics(f) for f in features), verbose=False)
    size = min(len(f) for f in features)  # It takes sets of one size.
    options = dict(kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1)
    return fid["frechet_inception_distance"], kernel_mmd(*(f[:size].numpy() for f in features), **options)


def test_scores_of_folders_are_those_of_torch_fidelity(tmp_path, weights, folders):
    sets, (a, b) = folders
    features = [reference_features("torch_fidelity", weights[0], images).double() for images in sets]
    fid, kid = torch_fidelity_scores(features)
    assert frechet_of(features) == pytest.approx(fid, rel=1e-4)
    options = ("--json", "--metric", "fid", "--metric", "kid", "--inception", weights[1],
               "--inception-resize", "torch_fidelity")
    one = json.loads(run(0, "eval", a, "--reference", b, *options).stdout)
    assert one["fid"] == pytest.approx(fid, rel=RELATIVE)
    three = json.loads(run(3, "eval", a, "--reference", b, *options).stdout)
    assert one == three  # To the bit.
    first = write_pictures(tmp_path / "first", sets[0][:10])
    assert json.loads(run(2, "eval", first, "--reference", b, *options).stdout)["kid"] == pytest.approx(kid, rel=RELATIVE)


def frechet_of(features):
    """What pytorch-fid's calculate_frechet_distance gives (tests/slow/test_scores_pytorch_fid.py), in a moment: with
    S = root' root, the trace of (S1 S2)^(1/2) is the sum of the singular values of root1 root2'."""
    means = [f.double().mean(0) for f in features]
    roots = [(f.double() - mean) / (len(f) - 1) ** 0.5 for f, mean in zip(features, means)]
    spread = sum(root.square().sum() for root in roots) - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return ((means[0] - means[1]).square().sum() + spread).item()


@pytest.mark.parametrize("count", [300, 20])  # More and fewer than features: covariances of full rank, and singular.
def test_frechet_of_is_the_function_of_pytorch_fid(count):
    import_without_torchvision()
    from pytorch_fid.fid_score import calculate_frechet_distance

    generator = torch.Generator().manual_seed(count)
    draw = lambda: torch.randn(count, 64, generator=generator, dtype=torch.float64)
    features = [draw() * torch.linspace(0.5, 2, 64, dtype=torch.float64), 1.3 * draw() + 0.2]
    arrays = [f.numpy() for f in features]
    fid = calculate_frechet_distance(*(part for f in arrays for part in (f.mean(0), np.cov(f, rowvar=False))))
    assert frechet_of(features) == pytest.approx(fid, rel=1e-4)


def test_scores_of_folders_are_those_of_pytorch_fid(weights, folders):
    sets, (a, b) = folders
    fid = frechet_of([reference_features("pytorch_fid", weights[0], images) for images in sets])
    ours = json.loads(run(0, "eval", a, "--reference", b, "--json", "--inception", weights[1]).stdout)
    assert ours["fid"] == pytest.approx(fid, rel=RELATIVE) and "kid" not in ours


def test_folders_need_reference_and_weights(folders, tmp_path):
    done = run(2, "eval", folders[1][0], code=2)
    assert "--reference" in done.stderr and done.stderr.count("error:") == 1
    done = run(0, "eval", folders[1][0], "--reference", folders[1][1], "--inception", tmp_path / "none", code=3)
    assert "none" in done.stderr


def write_clip(folder):
    """A random CLIPModel with its tokenizer; returns the model."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(7)
    text = dict(vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                eos_token_id=49407, bos_token_id=49406, pad_token_id=49407, projection_dim=24)
    vision = dict(hidden_size=40, intermediate_size=80, num_hidden_layers=2, num_attention_heads=5, image_size=32,
                  patch_size=8, hidden_act="gelu", projection_dim=24)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    for part in model.children():
        randomize(part, 7)
    model.save_pretrained(folder)
    write_tokenizer_folder(folder)
    return model


def clip_reference(model, folder, images, texts):
    from transformers import CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images], return_tensors="pt")
    ids = CLIPTokenizer.from_pretrained(folder)(texts, padding="max_length", truncation=True, max_length=77,
                                               return_tensors="pt").input_ids
    with torch.no_grad():
        vision = model.visual_projection(model.vision_model(pixels.pixel_values).pooler_output)
        text = model.text_projection(model.text_model(ids).pooler_output)
    unit = lambda x: x / x.norm(dim=1, keepdim=True)
    return unit(vision), unit(text)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "clip"
    return write_clip(folder), folder


@pytest.mark.parametrize("size,tolerance", [((32, 32), 1e-5), ((64, 64), 2e-3), ((40, 56), 2e-3)])
def test_clip_embeddings(tmp_path, clip, size, tolerance):
    model, folder = clip
    images = pictures(3, 64, 5)[:, :, :size[0], :size[1]].contiguous()
    texts = ["a red fish", "", "two dogs in the snow"]
    save_file({"images": images}, tmp_path / "in.safetensors")
    subprocess.run([PROBE, "clip_pair", folder, tmp_path / "in.safetensors", tmp_path / "out.safetensors", *texts],
                   check=True, timeout=100)
    ours = load_file(tmp_path / "out.safetensors")
    vision, text = clip_reference(model, folder, images, texts)
    assert (ours["images"] - vision).abs().max() <= tolerance
    assert (ours["texts"] - text).abs().max() <= 1e-5


def test_clip_parts_of_a_diffusers_folder(tmp_path, clip):
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    model, folder = clip
    parts = tmp_path / "parts"
    CLIPVisionModelWithProjection.from_pretrained(folder).save_pretrained(parts / "image_encoder")
    CLIPTextModelWithProjection.from_pretrained(folder).save_pretrained(parts / "text_encoder")
    write_tokenizer_folder(parts / "tokenizer")
    save_file({"images": pictures(1, 32, 5)}, tmp_path / "in.safetensors")
    for name, where in (("a", folder), ("b", parts)):
        subprocess.run([PROBE, "clip_pair", where, tmp_path / "in.safetensors", tmp_path / name, "a cat"], check=True,
                       timeout=100)
    a, b = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert torch.equal(a["images"], b["images"]) and torch.equal(a["texts"], b["texts"])


SCORES = ["fid", "kid", "clip_score", "latent_frechet"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory, weights, clip):
    """A run of two ranks that scores its samples, and what it was made from."""
    folder = tmp_path_factory.mktemp("scored")
    base = write_pipeline(folder / "base")
    scores = dict(metrics=SCORES, inception=str(weights[1]), clip=str(clip[1]), count=5, batch=2, reference="train")
    config = write_config(folder / "c.toml", base, write_dataset(folder / "train.h5", samples=12), folder / "run",
                          run={"steps": 2}, batch={"global": 4}, eval={"every_steps": 2, "timesteps": 1},
                          data={"validation_fraction": 0.2}, sample={"count": 0, "steps": 2, "sampler": "dpmpp_2m"},
                          scores=scores)
    run(2, "train", config, timeout=300)
    return folder


def test_scores_stand_in_the_metrics_and_eval_repeats_them(scored):
    lines = metrics(scored / "run", "eval")
    assert [line["step"] for line in lines] == [0, 2] and all(name in line for line in lines for name in SCORES)
    (cache,) = (scored / "run" / "cache").iterdir()
    written = cache.stat().st_mtime_ns
    done = run(0, "eval", scored / "run", "--json", timeout=300)
    offline = json.loads(done.stdout)
    for name in SCORES:  # Another number of ranks, from the checkpoint.
        assert offline[name] == pytest.approx(lines[-1][name], rel=1e-9), name
    assert list((scored / "run" / "cache").iterdir()) == [cache] and cache.stat().st_mtime_ns == written  # Kept.


def test_in_loop_scores_are_those_of_the_packages(scored, weights, clip, tmp_path):
    """The scored pictures, drawn by `sample` as PNGs, through the real packages."""
    import h5py
    from diffusers import AutoencoderKL

    captions = run(0, "sample", scored / "run", "--count", 5, "--out", tmp_path / "drawn",
                   "--set", "sample.batch=2").stdout
    assert "caption" in captions
    drawn = [Image.open(tmp_path / "drawn" / f"{i:05}.png") for i in range(5)]
    images = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in drawn])
    scores = metrics(scored / "run", "eval")[-1]

    vae = AutoencoderKL.from_pretrained(scored / "base" / "vae")
    with h5py.File(scored / "train.h5") as f:
        latents = torch.from_numpy(f["latents"][:]).float()
    with torch.no_grad():
        decoded = vae.decode(latents).sample
    real = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    training = [i for i in range(12) if i not in validation_samples(scored)]
    features = [reference_features("pytorch_fid", weights[0], x) for x in (images, real[training])]
    assert scores["fid"] == pytest.approx(frechet_of(features), rel=RELATIVE)
    texts = [image.text.get("prompt", "") for image in drawn]
    vision, text = clip_reference(clip[0], clip[1], images, texts)
    expected = (100 * (vision * text).sum(1)).clamp(min=0).mean().item()
    assert scores["clip_score"] == pytest.approx(expected, rel=5e-3, abs=0.05)


def validation_samples(scored):
    """Those that training never draws."""
    order = run(0, "inspect", scored / "run" / "config.toml", "--order", "1:3").stdout.split("\n")
    return set(range(12)) - {int(line.split("\t")[4]) for line in order if line}


@pytest.mark.parametrize("scores,word", [
    (dict(metrics=["fid"]), "scores.inception"), (dict(metrics=["clip_score"]), "scores.clip"),
    (dict(metrics=["is"]), "latent_frechet"), (dict(metrics=["latent_frechet"] * 2), "twice"),
    (dict(metrics=["latent_frechet"], count=1), "scores.count"),
])
def test_scores_that_cannot_be_computed(tmp_path, scored, scores, word):
    config = write_config(tmp_path / "c.toml", scored / "base", scored / "train.h5", tmp_path / "run", scores=scores)
    done = run(0, "check", config, code=2)
    assert word in done.stderr


def test_a_score_stops_a_run(tmp_path, scored):
    config = write_config(tmp_path / "c.toml", scored / "base", scored / "train.h5", tmp_path / "run",
                          data={"validation_fraction": 0.0}, run={"steps": 6}, batch={"global": 4},
                          eval={"every_steps": 1}, optim={"lr": 1e-12}, sample={"count": 0, "steps": 2},
                          scores=dict(metrics=["latent_frechet"], count=4),
                          early_stopping=dict(metric="latent_frechet", patience=2, min_delta=1.0))
    run(2, "train", config)
    lines = metrics(tmp_path / "run", "eval")
    assert [line["step"] for line in lines] == [0, 1, 2] and "val_loss" not in lines[0]
    assert "early_stop" in [event["what"] for event in metrics(tmp_path / "run", "event")]
