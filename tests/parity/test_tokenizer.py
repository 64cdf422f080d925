"""The C++ tokenizer against transformers' CLIPTokenizer, token by token."""
import os
import random
import subprocess
import unicodedata
from pathlib import Path

import pytest
from clip_vocabulary import BEGIN, END, write_tokenizer_folder
from transformers import CLIPTokenizer

PROBE = Path(os.environ["TRIREME_BUILD"]) / "tests" / "model_probe"
NUM_TEXTS = 10_000

SCRIPTS = {
    "latin": (0x20, 0x24F), "ipa": (0x250, 0x2AF), "marks": (0x300, 0x36F), "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x52F), "armenian": (0x530, 0x58F), "hebrew": (0x590, 0x5FF),
    "arabic": (0x600, 0x6FF), "syriac": (0x700, 0x74F), "devanagari": (0x900, 0x97F),
    "bengali": (0x980, 0x9FF), "tamil": (0xB80, 0xBFF), "thai": (0xE00, 0xE7F),
    "tibetan": (0xF00, 0xFFF), "georgian": (0x10A0, 0x10FF), "jamo": (0x1100, 0x11FF),
    "ethiopic": (0x1200, 0x137F), "cherokee": (0x13A0, 0x13FF), "khmer": (0x1780, 0x17FF),
    "latin more": (0x1E00, 0x1EFF), "greek more": (0x1F00, 0x1FFF), "punctuation": (0x2000, 0x206F),
    "super": (0x2070, 0x209F), "letterlike": (0x2100, 0x218F), "maths": (0x2200, 0x22FF),
    "enclosed": (0x2460, 0x24FF), "dingbats": (0x2700, 0x27BF), "kana": (0x3000, 0x30FF),
    "han": (0x4E00, 0x9FFF), "latin d": (0xA720, 0xA7FF), "hangul": (0xAC00, 0xD7A3),
    "compatibility": (0xF900, 0xFAFF), "forms": (0xFB00, 0xFFFF), "private": (0xE000, 0xE0FF),
    "old scripts": (0x10000, 0x11FFF), "hieroglyphs": (0x13000, 0x143FF), "music": (0x1D000, 0x1D7FF),
    "emoji": (0x1F000, 0x1FAFF), "han 2": (0x20000, 0x2EE5F), "tags": (0xE0000, 0xE01EF),
    "anything": (0x0, 0x10FFFF), "control": (0x0, 0x9F),
}
SPECIAL = [BEGIN, END, "<|", "|>", BEGIN.upper(), "<|EndOfText|>", "!", "!!", "'s", "'LL", "'re", "n't", "''", "\u2019s",
           "\r\n", "\t", " ", "  ", "\u00a0", "\u3000", "\u2028", "\u200d", "\ufe0f", "\u0130", "\u03a3", "\u00df", "\u1e9e",
           "\U0001f469\u200d\U0001f680", "\U0001f1e9\U0001f1ea", "e\u0301\u0327", "\u1100\u1161\u11a8", "\x00", "</w>", "a</w>", "#version"]
WORDS = "a photo of the cat's house, 1234.5 kg (HDR) -- UPPER Case don't we'll internationalization".split()


def all_texts():
    rng = random.Random(7)

    def characters(script, count):
        low, high = SCRIPTS[script]
        codes = (rng.randint(low, high) for _ in range(count))
        return "".join(chr(c) for c in codes if not 0xD800 <= c <= 0xDFFF)

    scripts = list(SCRIPTS)
    texts = ["", " ", "a photo of a cat", "x" * 5000, "ab" * 3000, "\u0301" * 500, "1" * 400, "! " * 300, *SPECIAL]
    while len(texts) < NUM_TEXTS:
        parts = []
        for _ in range(rng.randint(1, 8)):
            kind = rng.random()
            if kind < 0.5:
                parts.append(characters(rng.choice(scripts), rng.randint(1, 12)))
            elif kind < 0.7:
                parts.append(rng.choice(SPECIAL))
            elif kind < 0.9:
                parts.append(rng.choice(WORDS))
            else:
                parts.append(unicodedata.normalize("NFD", characters(rng.choice(scripts), 6)))
        texts.append(rng.choice(["", " "]).join(parts))
    return texts


def ours(folder, texts, tmp_path):
    encoded = [t if isinstance(t, bytes) else t.encode() for t in texts]
    (tmp_path / "in.bin").write_bytes(b"".join(t + b"\xff" for t in encoded))
    subprocess.run([PROBE, "tokenize", folder, tmp_path / "in.bin", tmp_path / "out.txt"], check=True, timeout=300)
    lines = (tmp_path / "out.txt").read_text().split("\n")[:-1]
    ids = [[int(i) for i in line.split()] for line in lines]
    assert len(ids) == 2 * len(texts)
    return ids[0::2], ids[1::2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    made = {"sd1": write_tokenizer_folder(root / "sd1"), "sd2": write_tokenizer_folder(root / "sd2", pad_token="!")}
    for name in ("sd1", "sd2"):
        CLIPTokenizer.from_pretrained(made[name]).save_pretrained(root / f"{name}-json")
        made[f"{name}-json"] = root / f"{name}-json"
        assert not (made[f"{name}-json"] / "vocab.json").exists()
    return made


@pytest.mark.parametrize(("name", "share"), [("sd1", 1), ("sd2", 4), ("sd1-json", 8), ("sd2-json", 8)])
def test_tokens_equal_transformers(folders, tmp_path, name, share):
    texts = all_texts()[: NUM_TEXTS // share]
    theirs = CLIPTokenizer.from_pretrained(folders[name])
    tokens, padded = ours(folders[name], texts, tmp_path)
    expected = theirs(texts, add_special_tokens=False, verbose=False).input_ids
    expected_padded = theirs(texts, padding="max_length", max_length=77, truncation=True).input_ids
    wrong = [i for i in range(len(texts)) if tokens[i] != expected[i] or padded[i] != expected_padded[i]]
    for i in wrong[:5]:
        print(ascii(texts[i]), tokens[i], expected[i], sep="\n")
    assert not wrong, f"{len(wrong)} of {len(texts)} texts differ"


def test_every_character_equals_transformers(folders, tmp_path):
    codes = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    texts = ["".join(f"a{chr(c)}1" for c in codes[i : i + 64]) for i in range(0, len(codes), 64)]
    tokens, _ = ours(folders["sd1"], texts, tmp_path)
    expected = CLIPTokenizer.from_pretrained(folders["sd1"])(texts, add_special_tokens=False, verbose=False).input_ids
    wrong = [hex(ord(texts[i][1])) for i in range(len(texts)) if tokens[i] != expected[i]]
    assert not wrong, wrong[:20]


def test_known_answer(folders, tmp_path):
    tokens, padded = ours(folders["sd1"], ["a photo of a cat"], tmp_path)
    assert tokens[0] == [320, 1125, 539, 320, 2368]
    assert padded[0] == [49406, 320, 1125, 539, 320, 2368] + [49407] * 71


def test_invalid_utf8_is_the_replacement_character(folders, tmp_path):
    raw = [b"a\xc3", b"\x80\x80b", b"\xe2\x82 c", b"\xf0\x9f\x98d", b"\xed\xa0\x80"]
    replaced = [t.decode("utf-8", errors="replace") for t in raw]
    assert ours(folders["sd1"], raw, tmp_path)[0] == ours(folders["sd1"], replaced, tmp_path)[0]


def test_a_word_of_a_million_letters_is_quick(folders, tmp_path):
    tokens, _ = ours(folders["sd1"], ["abcdefghij" * 100_000], tmp_path)
    assert len(tokens[0]) > 100_000


@pytest.mark.parametrize("text", ["{", "[]", '{"a": -1}', '{"a": 1.5}', '{"a": 4294967296}', "{}"])
def test_damaged_vocabulary_is_an_input_error(folders, tmp_path, text):
    folder = tmp_path / "damaged"
    write_tokenizer_folder(folder)
    (folder / "vocab.json").write_text(text)
    (tmp_path / "in.bin").write_bytes(b"x\xff")
    result = subprocess.run([PROBE, "tokenize", folder, tmp_path / "in.bin", tmp_path / "out.txt"], capture_output=True, text=True)
    assert result.returncode == 3 and "vocab" in result.stderr, result
