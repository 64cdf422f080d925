"""Exports of an adapter and of a network, loaded by diffusers, PEFT and transformers: equal outputs."""
import json
import os
import pathlib

import numpy as np
import pytest
import tiny_run
import torch
from parity.encoders import randomize, relative_error
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LAYERS = ATTENTION + ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut",
                      "time_emb_proj", "conv_in", "conv_out", "linear_1", "conv"]


def write_pipeline(folder, version):
    """A small Stable Diffusion pipeline; version 1 or 2 decides the text encoder and the projections."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(version)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=2 if version == 1 else 1, block_out_channels=(16, 24, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=24,
        attention_head_dim=2, norm_num_groups=8, use_linear_projection=version == 2)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, norm_num_groups=4, scaling_factor=0.5,
        sample_size=32)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=4275, hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=16, hidden_act="quick_gelu" if version == 1 else "gelu", eos_token_id=4274,
        bos_token_id=4273, pad_token_id=4274))
    StableDiffusionPipeline(
        vae=randomize(vae, 1), text_encoder=randomize(text, 2),
        tokenizer=CLIPTokenizer.from_pretrained(ROOT / "demo" / "base" / "tokenizer"), unet=randomize(unet, 3),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                                steps_offset=1, set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(folder)
    return folder


def train(folder, base, **tables):
    changes = dict(run={"steps": 3}, optim={"lr": 0.02}, lr_schedule={"name": "constant", "warmup_steps": 0},
                   ema={"decay": 0.5}, eval={"every_steps": 3}, checkpoint={"every_steps": 0})
    config = tiny_run.write_config(folder / "config.toml", base, tiny_run.write_dataset(folder / "train.h5"),
                                   folder / "run", **changes, **tables)
    tiny_run.run(1, "train", config)
    return folder / "run"


@pytest.fixture(scope="module", params=[1, 2])
def adapted(request, tmp_path_factory):
    """A run with an adapter, of version 1 with alpha / sqrt(rank), of 2 on more layers."""
    folder = tmp_path_factory.mktemp("adapted")
    base = write_pipeline(folder / "base", request.param)
    adapter = {"type": "lora", "rank": 4, "alpha": 6.0, "use_rslora": request.param == 1,
               "targets": ATTENTION if request.param == 1 else LAYERS}
    return base, train(folder, base, adapter=adapter), adapter


def inputs():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([7, 800]),
            torch.randn(2, 5, 24, generator=generator))


def output(unet):
    with torch.no_grad():
        return unet.eval()(*inputs()).sample


def pipeline(base):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(base)


def export(run, form, out, *options):
    tiny_run.run(0, "export", run, "--format", form, "--out", out, *options)
    return out


@pytest.mark.parametrize("average", [(), ("--ema",)])
def test_adapter_in_diffusers_and_peft(adapted, tmp_path, average):
    from diffusers import UNet2DConditionModel

    base, run, _ = adapted
    merged = output(UNet2DConditionModel.from_pretrained(
        export(run, "diffusers", tmp_path / "merged", *average), subfolder="unet"))
    assert relative_error(output(pipeline(base).unet), merged) > 0.01  # It learned something.

    loaded = pipeline(base)
    loaded.load_lora_weights(export(run, "lora-peft", tmp_path / "peft", *average))
    assert relative_error(output(loaded.unet), merged) <= TOLERANCE

    kohya = pipeline(base)
    kohya.load_lora_weights(str(export(run, "lora-kohya", tmp_path / "style.safetensors", *average)))
    assert relative_error(output(kohya.unet), merged) <= TOLERANCE

    single = export(run, "single-file", tmp_path / "model.safetensors", *average)
    unet = UNet2DConditionModel.from_single_file(str(single), config=str(base), subfolder="unet", torch_dtype=torch.float32)
    assert relative_error(output(unet), merged) <= TOLERANCE


def test_the_merged_network_has_the_loss_of_the_checkpoint(adapted, tmp_path):
    """And the checkpoint's own folder loads in diffusers as the export does."""
    base, run, _ = adapted
    merged = export(run, "diffusers", tmp_path / "merged")
    ours = json.loads(tiny_run.run(2, "eval", run, "--json").stdout)
    of_run = tiny_run.metrics(run, "eval")[-1]
    assert ours["val_loss"] == pytest.approx(of_run["val_loss"], rel=1e-9)
    assert ours["val_loss_ema"] == pytest.approx(of_run["val_loss_ema"], rel=1e-9)
    config = tiny_run.write_config(tmp_path / "c.toml", merged, run.parent / "train.h5", tmp_path / "full", run={"steps": 1},
                                   eval={"every_steps": 3, "timesteps": 2}, checkpoint={"every_steps": 0})
    tiny_run.run(1, "train", config)
    assert tiny_run.metrics(tmp_path / "full", "eval")[0]["val_loss"] == pytest.approx(ours["val_loss"], rel=1e-5)
    loaded = pipeline(base)
    loaded.load_lora_weights(run / "checkpoints" / "latest" / "adapter")
    assert relative_error(output(loaded.unet), output(pipeline(merged).unet)) <= TOLERANCE


def test_kohya_keys_and_alpha(adapted, tmp_path):
    _, run, adapter = adapted
    file = export(run, "lora-kohya", tmp_path / "style.safetensors")
    tensors = load_file(file)
    modules = {name.split(".")[0] for name in tensors}
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0" in modules
    for module in modules:
        assert {n for n in tensors if n.startswith(module + ".")} == {
            f"{module}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")}
        down, up = tensors[f"{module}.lora_down.weight"], tensors[f"{module}.lora_up.weight"]
        assert down.dim() == up.dim() and down.shape[0] == up.shape[1] == 4
        assert tensors[f"{module}.alpha"].shape == ()
        assert tensors[f"{module}.alpha"].item() == pytest.approx(6.0 * (2.0 if adapter["use_rslora"] else 1.0))
    with safe_open(file, "pt") as f:
        metadata = f.metadata()
    assert metadata["ss_network_dim"] == "4" and metadata["ss_network_module"] == "networks.lora"


def test_single_file_is_a_whole_pipeline(adapted, tmp_path):
    """from_single_file finds network, VAE and text encoder under the names of the original code."""
    from diffusers import StableDiffusionPipeline

    base, run, _ = adapted
    file = export(run, "single-file", tmp_path / "model.safetensors")
    loaded = StableDiffusionPipeline.from_single_file(str(file), config=str(base), safety_checker=None,
                                                      torch_dtype=torch.float32)
    expected = pipeline(export(run, "diffusers", tmp_path / "merged"))
    assert relative_error(output(loaded.unet), output(expected.unet)) <= TOLERANCE
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[4273, 5, 17, 300, 4274, 4274]])
    with torch.no_grad():
        assert relative_error(loaded.vae(images).sample, expected.vae(images).sample) <= TOLERANCE
        assert relative_error(loaded.text_encoder(ids).last_hidden_state,
                              expected.text_encoder(ids).last_hidden_state) <= TOLERANCE
    names = load_file(file).keys()
    text = "cond_stage_model.model.token_embedding.weight", (
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight")
    assert sum(name in names for name in text) == 1
    assert "model.diffusion_model.input_blocks.0.0.weight" in names
    assert "first_stage_model.quant_conv.weight" in names


def test_single_file_of_trained_weights(tmp_path):
    """A full fine-tuning, to the bit; adapter formats say that there is none."""
    from diffusers import UNet2DConditionModel

    base = write_pipeline(tmp_path / "base", 1)
    run = train(tmp_path, base)
    file = export(run, "single-file", tmp_path / "model.safetensors")
    unet = UNet2DConditionModel.from_single_file(str(file), config=str(base), subfolder="unet")
    expected = UNet2DConditionModel.from_pretrained(run / "checkpoints" / "latest" / "unet")
    assert unet.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, unet.state_dict()[name]), name
    for form in ("lora-peft", "lora-kohya"):
        done = tiny_run.run(0, "export", run, "--format", form, "--out", tmp_path / "x", code=2)
        assert "no" in done.stderr and "adapter" in done.stderr
    for form in ("single-file", "lora-kohya"):
        tiny_run.run(0, "export", run, "--format", form, "--out", "/proc/x", code=2)
    assert not [name for name in os.listdir(tmp_path) if "trireme-tmp" in name]


def test_the_weight_of_an_adapter(adapted, tmp_path):
    """Weight 0 draws what the base draws, 1 what the merged network draws, 2 something else."""
    from PIL import Image

    base, run, _ = adapted

    def draw(name, *options):
        out = tmp_path / f"{name}.png"
        tiny_run.run(2, "sample", run, "--count", 2, "--steps", 3, "--out", out, *options)
        picture = Image.open(out)
        assert float(picture.text["lora_weight"]) == float(options[-1] if options else 1)
        assert picture.text["weights"] == "trained"
        return np.asarray(picture.convert("RGB")).astype(int)

    one, zero, two = draw("one"), draw("zero", "--lora-weight", 0), draw("two", "--lora-weight", "2.0")
    assert (one == draw("default", "--lora-weight", 1)).all()
    assert np.abs(one - zero).max() > 3 and np.abs(one - two).max() > 3
    untrained = tiny_run.write_config(pathlib.Path(tmp_path / "c.toml"), base, run.parent / "train.h5", tmp_path / "base",
                                      run={"steps": 1}, optim={"lr": 1e-30}, eval={"every_steps": 0})
    tiny_run.run(1, "train", untrained)
    tiny_run.run(0, "sample", tmp_path / "base", "--count", 2, "--steps", 3, "--out", tmp_path / "b.png")
    assert (np.asarray(Image.open(tmp_path / "b.png").convert("RGB")) == zero).all()
    done = tiny_run.run(0, "sample", tmp_path / "base", "--count", 1, "--lora-weight", "0.5", code=2)
    assert "no adapter" in done.stderr
