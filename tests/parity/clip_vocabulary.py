"""CLIP's real vocabulary without a network: from the merges file that open_clip_torch ships."""
import gzip
import importlib.util
import json
from pathlib import Path

NUM_MERGES = 48894
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def vocabulary_and_merges():
    package = Path(importlib.util.find_spec("open_clip").origin).parent
    text = gzip.open(package / "bpe_simple_vocab_16e6.txt.gz").read().decode()
    merges = text.split("\n")[1 : NUM_MERGES + 1]
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols]
    tokens += ["".join(merge.split()) for merge in merges] + [BEGIN, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def write_tokenizer_folder(folder, pad_token=END):
    """As the tokenizer/ of Stable Diffusion 1 (pad END) and 2 (pad "!") came, for transformers 4."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = vocabulary_and_merges()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")

    def token(content):
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    special = {"bos_token": token(BEGIN), "eos_token": token(END), "unk_token": token(END), "pad_token": pad_token}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"model_max_length": 77, "pad_token": END, "tokenizer_class": "CLIPTokenizer"}
    for key in ("bos_token", "eos_token", "unk_token"):
        config[key] = {"__type": "AddedToken", **special[key]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
