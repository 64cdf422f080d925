#!/usr/bin/env python3
"""Cuts the demo's few-shot data out of what tools/make_demo_assets.py packed: a subject, and its class.

    tools/demo_subject.py --noto /tmp/demo-work/noto.h5 --out demo

subject_train.h5 and subject_val.h5 hold the clock faces of Symbola's drawings ("three o'clock", …) that demo/symbola_train.h5 and
symbola_val.h5 have. prior_train.h5 and prior_val.h5 hold colour emoji of Noto: of all whose caption is no such clock, every 13th, and
those half way between. Latents, text, checksums and provenance are copied as they are.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np

STEP = 13
CLOCK = "o’clock"


def captions(file: h5py.File) -> list[str]:
    """The caption of each sample."""
    texts = [text.decode() for text in file["text/captions"][:]]
    return [texts[index] for index in file["caption_index"][:].reshape(-1)]


def cut(source: h5py.File, rows: list[int], out: Path) -> None:
    """A packed file of these samples of another, with the text they need; row 0 of the text is the empty prompt."""
    index = source["caption_index"][:].reshape(-1)
    text_rows = [0] + sorted({int(index[row]) for row in rows} - {0})
    place = {row: i for i, row in enumerate(text_rows)}
    with h5py.File(out, "w") as file:
        file.attrs.update(source.attrs)
        for name in ("latents", "ids", "xxh3"):
            file.create_dataset(name, data=source[name][:][rows], dtype=source[name].dtype)
            file[name].attrs.update(source[name].attrs)
        file["caption_index"] = np.array([place[int(index[row])] for row in rows], np.int32)
        for name in source["text"]:
            data = source["text"][name]
            file.create_dataset(f"text/{name}", data=data[:][text_rows], dtype=data.dtype)
    print(f"{out}: {len(rows)} samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noto", type=Path, required=True, help="noto.h5 of tools/make_demo_assets.py")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "demo")
    args = parser.parse_args()
    for part in ("train", "val"):
        with h5py.File(args.out / f"symbola_{part}.h5") as source:
            rows = [row for row, text in enumerate(captions(source)) if text.endswith(CLOCK)]
            cut(source, rows, args.out / f"subject_{part}.h5")
    with h5py.File(args.noto) as source:
        rows = [row for row, text in enumerate(captions(source)) if not text.endswith(CLOCK)]
        cut(source, rows[::STEP], args.out / "prior_train.h5")
        cut(source, rows[STEP // 2 :: STEP], args.out / "prior_val.h5")


if __name__ == "__main__":
    main()
