"""UNet2DConditionModel: outputs, gradients, names, files and refusals against diffusers."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from parity.unet_parity import (compare, make_inputs, make_model, probe, relative_error,
                                run_diffusers, run_probe, write_config)

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SD1 = dict(block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
           down_block_types=(CROSS_DOWN, "DownBlock2D"), up_block_types=("UpBlock2D", CROSS_UP),
           cross_attention_dim=24)

CASES = {
    "sd1": (SD1, {}),
    "sd1_two_layers_four_blocks": (dict(
        block_out_channels=(32, 32, 64, 64), layers_per_block=2, norm_num_groups=32,
        down_block_types=(CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP), cross_attention_dim=24),
        dict(size=(16, 8))),
    "sd2_linear_projection": (SD1 | dict(use_linear_projection=True, attention_head_dim=(2, 8),
                                         upcast_attention=True), {}),
    "odd_sizes": (SD1 | dict(block_out_channels=(16, 24, 32), attention_head_dim=2,
                             down_block_types=(CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
                             up_block_types=("UpBlock2D", CROSS_UP, CROSS_UP)),
                  dict(size=(9, 13), batch=3)),
    "plain": (SD1 | dict(down_block_types=("DownBlock2D", "DownBlock2D"),
                         up_block_types=("UpBlock2D", "UpBlock2D"), mid_block_type="UNetMidBlock2D"),
              dict(text_length=0)),
    "no_middle": (SD1 | dict(mid_block_type=None), {}),
    "class_table_and_scale_shift": (SD1 | dict(num_class_embeds=11,
                                               resnet_time_scale_shift="scale_shift"), {}),
    "class_timestep_concatenated": (SD1 | dict(class_embed_type="timestep", act_fn="gelu",
                                               class_embeddings_concat=True), {}),
    "text_time": (SD1 | dict(addition_embed_type="text_time", addition_time_embed_dim=8,
                             projection_class_embeddings_input_dim=6 * 8 + 20,
                             transformer_layers_per_block=(1, 3), use_linear_projection=True), {}),
    "only_cross_attention": (SD1 | dict(only_cross_attention=(True, False), in_channels=9,
                                        out_channels=5, act_fn="mish"), {}),
    "heads_that_do_not_divide": (SD1 | dict(attention_head_dim=(3, 5)), {}),
    "heads_that_do_not_divide_linear": (SD1 | dict(attention_head_dim=(3, 5),
                                                   use_linear_projection=True), {}),
    "unusual_numbers": (SD1 | dict(
        downsample_padding=0, mid_block_scale_factor=1.4, norm_eps=1e-3, freq_shift=1,
        flip_sin_to_cos=False, center_input_sample=True, conv_in_kernel=5, conv_out_kernel=1,
        time_embedding_dim=40, timestep_post_act="silu", time_embedding_act_fn="gelu"), {}),
    "layers_as_lists": (SD1 | dict(
        layers_per_block=(1, 2), transformer_layers_per_block=[[2], [1, 1]],
        reverse_transformer_layers_per_block=[[1, 1, 1], [1, 2]], up_block_types=(CROSS_UP, CROSS_UP),
        down_block_types=(CROSS_DOWN, CROSS_DOWN)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_equal_those_of_diffusers(case, tmp_path):
    config, shape = CASES[case]
    model = make_model(config)
    model.save_pretrained(tmp_path / "unet")
    inputs = make_inputs(model, **shape)
    ours = run_probe(tmp_path / "unet", inputs, tmp_path)
    output_error, gradient_error, where = compare(ours, run_diffusers(model, inputs))
    assert output_error <= 1e-5
    assert gradient_error <= 1e-4, where


def test_fractional_timesteps(tmp_path):
    model = make_model(SD1)
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model) | {"timesteps": torch.tensor([0.25, 731.5])}
    ours = run_probe(tmp_path, inputs, tmp_path)
    assert relative_error(ours["output"], run_diffusers(model, inputs)["output"]) <= 1e-5


@pytest.mark.parametrize("options", [dict(max_shard_size="100KB"), dict(variant="fp16")])
def test_sharded_and_half_precision_weights(options, tmp_path):
    model = make_model(SD1)
    if "variant" in options:
        model = model.half()
    model.save_pretrained(tmp_path / "unet", **options)
    assert not (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    model = model.float()
    inputs = make_inputs(model)
    ours = run_probe(tmp_path, inputs, tmp_path)
    assert relative_error(ours["output"], run_diffusers(model, inputs)["output"]) <= 1e-5


def test_random_weights_load_in_diffusers_with_its_distributions(tmp_path):
    torch.manual_seed(0)
    reference = UNet2DConditionModel(**SD1, num_class_embeds=400)
    reference.save_config(tmp_path)
    probe("unet_random", tmp_path / "config.json", 7, tmp_path / "a")
    probe("unet_random", tmp_path / "config.json", 7, tmp_path / "b")
    probe("unet_random", tmp_path / "config.json", 8, tmp_path / "c")
    weights = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()

    ours, info = UNet2DConditionModel.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for key, value in reference.config.items():
        assert key.startswith("_") or json.dumps(ours.config[key]) == json.dumps(value), key
    for (name, a), b in zip(ours.named_parameters(), reference.parameters()):
        if "norm" in name:
            assert torch.equal(a, b), name
            continue
        if a.numel() < 500:
            continue
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.15), name
        if name != "class_embedding.weight":
            assert a.abs().max().item() == pytest.approx(b.abs().max().item(), rel=0.1), name


def test_parameters_stand_in_the_order_of_diffusers(tmp_path):
    model = make_model(SD1 | dict(num_class_embeds=3))
    model.save_pretrained(tmp_path)
    result = probe("unet_names", tmp_path)
    assert result.stdout.split() == [name for name, _ in model.named_parameters()]


def test_dropout_depends_on_its_key_alone(tmp_path):
    model = make_model(SD1 | dict(dropout=0.25))
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model)

    def output(seed, step, position):
        key = {"dropout_key": torch.tensor([seed, step, position])}
        return run_probe(tmp_path, inputs | key, tmp_path)["output"]

    first = output(5, 3, 16)
    assert torch.equal(first, output(5, 3, 16))
    without = run_probe(tmp_path, inputs, tmp_path)["output"]
    assert relative_error(without, run_diffusers(model, inputs)["output"]) <= 1e-5
    for other in (output(6, 3, 16), output(5, 4, 16), output(5, 3, 0), without):
        assert relative_error(other, first) > 1e-3


REFUSALS = [
    (dict(down_block_types=["AttnDownBlock2D", "DownBlock2D"]), "down_block_types"),
    (dict(up_block_types=["UpBlock2D"]), "up_block_types"),
    (dict(mid_block_type="UNetMidBlock2DSimpleCrossAttn"), "mid_block_type"),
    (dict(num_attention_heads=8), "num_attention_heads"),
    (dict(attention_head_dim=[4]), "attention_head_dim"),
    (dict(attention_head_dim=40), "attention_head_dim"),
    (dict(attention_head_dim=0), "attention_head_dim"),
    (dict(dual_cross_attention=True), "dual_cross_attention"),
    (dict(attention_type="gated"), "attention_type"),
    (dict(time_embedding_type="fourier"), "time_embedding_type"),
    (dict(class_embed_type="projection"), "class_embed_type"),
    (dict(addition_embed_type="image"), "addition_embed_type"),
    (dict(encoder_hid_dim=10, encoder_hid_dim_type="text_proj"), "encoder_hid_dim"),
    (dict(resnet_time_scale_shift="ada_group"), "resnet_time_scale_shift"),
    (dict(act_fn="tanh"), "act_fn"),
    (dict(norm_num_groups=7), "norm_num_groups"),
    (dict(norm_num_groups=None), "norm_num_groups"),
    (dict(cross_attention_dim=None), "cross_attention_dim"),
    (dict(cross_attention_dim=[24, 32]), "cross_attention_dim"),
    (dict(cross_attention_dim=2**70), "cross_attention_dim"),
    (dict(block_out_channels=[32, 64.5]), "block_out_channels"),
    (dict(block_out_channels=[]), "block_out_channels"),
    (dict(layers_per_block=-1), "layers_per_block"),
    (dict(layers_per_block=10**9), "layers_per_block"),
    (dict(conv_in_kernel=2), "conv_in_kernel"),
    (dict(norm_eps="small"), "norm_eps"),
    (dict(use_linear_projection=1), "use_linear_projection"),
    (dict(patch_size=2), "patch_size"),
    (dict(_class_name="FluxTransformer2DModel"), "_class_name"),
]


@pytest.mark.parametrize("change,key", REFUSALS, ids=lambda v: json.dumps(v)[:40])
def test_a_config_that_cannot_be_represented_is_refused_by_name(change, key, tmp_path):
    config = dict(UNet2DConditionModel(**SD1).config)
    if key == "cross_attention_dim" and isinstance(change[key], list):
        config["up_block_types"] = [CROSS_UP, CROSS_UP]
    path = write_config(tmp_path / "config.json", config | change)
    result = probe("unet_random", path, 0, tmp_path / "out", check=False)
    assert result.returncode == 3, result.stderr
    assert key in result.stderr and str(path) in result.stderr
    assert result.stderr.count("\n") == 1


def test_harmless_unknown_keys_and_null_width_of_a_plain_model(tmp_path):
    config = dict(UNet2DConditionModel(**CASES["plain"][0]).config)
    config |= {"_anything": 5, "new_feature": None, "other_feature": False,
               "cross_attention_dim": None}
    path = write_config(tmp_path / "config.json", config)
    probe("unet_random", path, 0, tmp_path / "out")
    UNet2DConditionModel.from_pretrained(tmp_path / "out")


def saved(tmp_path):
    model = make_model(SD1)
    model.save_pretrained(tmp_path)
    return load_file(tmp_path / "diffusion_pytorch_model.safetensors"), make_inputs(model)


def test_weights_that_do_not_fit_are_named(tmp_path):
    tensors, inputs = saved(tmp_path)
    del tensors["conv_in.bias"]
    tensors["conv_out.bias"] = torch.zeros(5)
    tensors["extra.weight"] = torch.zeros(1)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    save_file(inputs, tmp_path / "in.safetensors")
    result = probe("unet", tmp_path, tmp_path / "in.safetensors", tmp_path / "o", check=False)
    assert result.returncode == 3
    for name in ("conv_in.bias", "conv_out.bias [5] instead of [4]", "extra.weight"):
        assert name in result.stderr


def test_weights_that_are_not_finite_are_named(tmp_path):
    tensors, inputs = saved(tmp_path)
    tensors["conv_out.bias"][1] = float("nan")
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    save_file(inputs, tmp_path / "in.safetensors")
    result = probe("unet", tmp_path, tmp_path / "in.safetensors", tmp_path / "o", check=False)
    assert result.returncode == 3 and "conv_out.bias" in result.stderr


def test_missing_files_are_named(tmp_path):
    for make, hint in ((lambda p: None, "does not exist"),
                       (lambda p: p.mkdir(), "unet/config.json"),
                       (lambda p: (p / "transformer").mkdir(parents=True), "not supported yet")):
        path = tmp_path / hint.replace("/", "_")
        make(path)
        result = probe("unet", path, "in", "out", check=False)
        assert result.returncode == 3 and hint in result.stderr and str(path) in result.stderr
