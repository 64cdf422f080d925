"""plan's closed forms against PyTorch's FLOP counter on diffusers' networks (meta tensors: nothing is computed)."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny_run

CONFIGS = Path(__file__).parent.parent / "study" / "configs"
TOLERANCE = 0.002


def plan(tmp_path, model, height, width, tokens, more=""):
    config = tmp_path / "plan.toml"
    config.write_text(
        f'[run]\nsteps = 10\n[model]\nconfig = "{model}"\n[data]\ntrain = ["absent.h5"]\n[batch]\nglobal = 64\n{more}')
    done = tiny_run.run(0, "plan", config, "--ranks", "1,8", "--json", "--size", f"{height},{width}",
                        "--text-tokens", tokens)
    return json.loads(done.stdout)["network"]


def inputs(config, height, width, tokens):
    name = config["_class_name"]
    channels = config["in_channels"]
    if name == "UNet2DConditionModel":
        values = dict(sample=torch.empty(1, channels, height, width), timestep=torch.zeros(1),
                      encoder_hidden_states=torch.empty(1, tokens, config["cross_attention_dim"]))
        if config.get("addition_embed_type"):
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            values["added_cond_kwargs"] = dict(text_embeds=torch.empty(1, pooled), time_ids=torch.empty(1, 6))
        return values
    if name == "DiTTransformer2DModel":
        return dict(hidden_states=torch.empty(1, channels, height, width), timestep=torch.zeros(1, dtype=torch.long),
                    class_labels=torch.zeros(1, dtype=torch.long))
    if name == "SD3Transformer2DModel":
        return dict(hidden_states=torch.empty(1, channels, height, width), timestep=torch.empty(1),
                    encoder_hidden_states=torch.empty(1, tokens, config["joint_attention_dim"]),
                    pooled_projections=torch.empty(1, config["pooled_projection_dim"]))
    rows = height * width // 4
    return dict(hidden_states=torch.empty(1, rows, channels), timestep=torch.empty(1),
                encoder_hidden_states=torch.empty(1, tokens, config["joint_attention_dim"]),
                pooled_projections=torch.empty(1, config["pooled_projection_dim"]),
                img_ids=torch.empty(rows, 3), txt_ids=torch.empty(tokens, 3))


def count(config, height, width, tokens, leave_trained=lambda model: None):
    """Parameters, tensors, forward and training FLOPs as PyTorch counts them, and how many parameters are trained."""
    import diffusers

    with torch.device("meta"):
        model = getattr(diffusers, config["_class_name"]).from_config(dict(config))
        size, tensors = sum(p.numel() for p in model.parameters()), len(list(model.parameters()))
        leave_trained(model)
        with FlopCounterMode(display=False) as forward:
            out = model(**inputs(config, height, width, tokens), return_dict=False)[0]
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    flops = forward.get_total_flops()
    return size, tensors, flops, flops + backward.get_total_flops(), trained


CASES = [("sd15", 64, 64, 77), ("sd2", 64, 64, 77), ("sd2", 32, 32, 77), ("sd2", 96, 96, 77), ("sdxl", 64, 64, 77),
         ("sdxl", 128, 128, 77),
         ("dit_s2", 32, 32, 0), ("dit_b2", 32, 32, 0), ("dit_l2", 32, 32, 0), ("dit_xl2", 32, 32, 0),
         ("sd3_medium", 64, 64, 154), ("sd3_medium", 128, 128, 154), ("flux1", 32, 32, 256), ("flux1", 128, 128, 512)]


@pytest.mark.parametrize("name,height,width,tokens", CASES)
def test_published_networks(tmp_path, name, height, width, tokens):
    check(tmp_path, CONFIGS / f"{name}.json", height, width, tokens)


SMALL = dict(_class_name="UNet2DConditionModel", in_channels=4, out_channels=4, layers_per_block=1,
             block_out_channels=[32, 64], norm_num_groups=8, cross_attention_dim=24, attention_head_dim=4,
             down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])
CHANGES = [dict(), dict(layers_per_block=[1, 2]), dict(resnet_time_scale_shift="scale_shift"),
           dict(transformer_layers_per_block=2, use_linear_projection=True), dict(downsample_padding=0),
           dict(only_cross_attention=True), dict(mid_block_type="UNetMidBlock2D")]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: ",".join(c) or "plain")
def test_small_unets_at_odd_sizes(tmp_path, changes):
    config = {**SMALL, **changes}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    check(tmp_path, file, 12, 20, 9)


def check(tmp_path, file, height, width, tokens):
    ours = plan(tmp_path, file, height, width, tokens)
    parameters, tensors, forward, training, trained = count(json.loads(Path(file).read_text()), height, width, tokens)
    assert ours["trained_parameters"] == trained == parameters
    assert ours["parameters"] == parameters
    assert ours["tensors"] == tensors
    assert ours["forward_gflops"] * 1e9 == pytest.approx(forward, rel=TOLERANCE)
    assert ours["training_gflops"] * 1e9 == pytest.approx(training, rel=TOLERANCE)


def add_lora(model):
    import peft

    model.requires_grad_(False)
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1"]))


def freeze_encoder(model):
    frozen = ("conv_in.", "time_embedding.", "down_blocks.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))


def freeze_all_but_cross_attention(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".attn2." in name)


LORA = '[adapter]\ntype = "lora"\nrank = 4\ntargets = ["to_q", "to_k", "to_v", "to_out.0", "conv1"]\n'


@pytest.mark.parametrize("name", ["sd15", "small"])
@pytest.mark.parametrize("more,leave_trained", [
    (LORA, add_lora),
    ('[freeze]\ngroups = ["encoder"]\n', freeze_encoder),
    ('[freeze]\ngroups = ["all_but_cross_attention"]\n', freeze_all_but_cross_attention),
], ids=["lora", "encoder", "all_but_cross_attention"])
def test_adapters_and_frozen_parts(tmp_path, name, more, leave_trained):
    file = CONFIGS / f"{name}.json"
    if name == "small":
        file = tmp_path / "config.json"
        file.write_text(json.dumps(SMALL))
    ours = plan(tmp_path, file, 32, 32, 77, more)
    size, tensors, forward, training, trained = count(json.loads(file.read_text()), 32, 32, 77, leave_trained)
    assert ours["trained_parameters"] == trained
    assert ours["parameters"] == (size + trained if more is LORA else size)
    assert ours["forward_gflops"] * 1e9 == pytest.approx(forward, rel=TOLERANCE)
    assert ours["training_gflops"] * 1e9 == pytest.approx(training, rel=0.01)
