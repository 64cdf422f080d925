"""The C++ CLIPTextModel against transformers', weights random."""
import json

import pytest
import torch
from encoders import TOLERANCE, probe, probe_error, randomize, relative_error
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

VOCABULARY = 100
CONFIGS = {
    "clip-l-like": dict(hidden_size=48, num_attention_heads=4, num_hidden_layers=3, intermediate_size=192, eos_token_id=2),
    "openclip-h-like": dict(hidden_size=64, num_attention_heads=8, num_hidden_layers=5, intermediate_size=256,
                            hidden_act="gelu", eos_token_id=2),
    "new-eos": dict(hidden_size=40, num_attention_heads=5, num_hidden_layers=2, intermediate_size=90,
                    eos_token_id=VOCABULARY - 1, layer_norm_eps=1e-3),
    "one-head": dict(hidden_size=20, num_attention_heads=1, num_hidden_layers=1, intermediate_size=50,
                     max_position_embeddings=24, eos_token_id=VOCABULARY - 1),
    "no-layer": dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=0, intermediate_size=16, eos_token_id=2),
}


def make(name, kind=CLIPTextModel, **more):
    config = CLIPTextConfig(**{**CONFIGS[name], "vocab_size": VOCABULARY, "projection_dim": 24, **more})
    return randomize(kind(config), seed=11)


def token_ids(model):
    generator = torch.Generator().manual_seed(2)
    length = model.config.max_position_embeddings
    ids = torch.randint(0, VOCABULARY - 1, (4, length), generator=generator)
    ids[0, 5:] = VOCABULARY - 1  # Padded with the end token: the first counts.
    ids[1, 9] = VOCABULARY - 1
    ids[2, -1] = VOCABULARY - 1
    return ids  # The last has no end token.


@torch.no_grad()
def compare(model, folder, tmp_path, ids=None):
    ids = token_ids(model) if ids is None else ids
    theirs = model(ids)
    ours = probe(tmp_path, ["clip", folder], {"token_ids": ids})
    pooled = theirs.text_embeds if hasattr(theirs, "text_embeds") else theirs.pooler_output
    assert relative_error(ours["last_hidden_state"], theirs.last_hidden_state) <= TOLERANCE
    assert relative_error(ours["pooled"], pooled) <= TOLERANCE


@pytest.mark.parametrize("name", list(CONFIGS))
def test_embeds_like_transformers(tmp_path, name):
    model = make(name)
    model.save_pretrained(tmp_path / "model" / "text_encoder")
    compare(model, tmp_path / "model", tmp_path)


def test_short_texts(tmp_path):
    model = make("clip-l-like")
    model.save_pretrained(tmp_path)
    compare(model, tmp_path, tmp_path, torch.tensor([[1, 99]]))


def test_pooled_is_projected_where_architectures_says_so(tmp_path):
    model = make("new-eos", CLIPTextModelWithProjection)
    model.save_pretrained(tmp_path)
    compare(model, tmp_path, tmp_path)


def test_reads_files_of_transformers_4(tmp_path):
    model = make("clip-l-like")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["text_projection.weight"] = torch.zeros(24, 48)
    save_file(tensors, file)
    old = dict(CONFIGS["clip-l-like"], _name_or_path="openai/clip-vit-large-patch14", architectures=["CLIPTextModel"],
               attention_dropout=0.0, bos_token_id=0, dropout=0.0, hidden_act="quick_gelu", initializer_factor=1.0,
               initializer_range=0.02, layer_norm_eps=1e-05, max_position_embeddings=77, model_type="clip_text_model",
               pad_token_id=1, projection_dim=768, torch_dtype="float32", transformers_version="4.22.0.dev0",
               vocab_size=VOCABULARY)
    (tmp_path / "config.json").write_text(json.dumps(old))
    compare(model, tmp_path, tmp_path)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_reads_half_precision_shards(tmp_path, dtype):
    model = make("openclip-h-like").to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    compare(model.float(), tmp_path, tmp_path)


@pytest.mark.parametrize(("key", "value"), [
    ("hidden_act", "relu"), ("num_attention_heads", 7), ("hidden_size", -4), ("model_type", "clip"), ("rope_theta", 1e4),
    ("architectures", ["T5EncoderModel"]), ("eos_token_id", [1, 2]), ("vocab_size", 1e3), ("num_hidden_layers", 10**9)])
def test_a_config_that_cannot_be_represented_names_the_key(tmp_path, key, value):
    make("clip-l-like").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    assert key in probe_error(tmp_path, ["clip", tmp_path], {"token_ids": torch.tensor([[1]])})


@pytest.mark.parametrize("ids", [[[VOCABULARY]], [[-1]], [[1] * 78]])
def test_ids_of_another_tokenizer_are_an_input_error(tmp_path, ids):
    make("clip-l-like").save_pretrained(tmp_path)
    assert "tokenizer" in probe_error(tmp_path, ["clip", tmp_path], {"token_ids": torch.tensor(ids)})
