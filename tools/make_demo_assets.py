#!/usr/bin/env python3
"""Makes everything that demo/ holds, from Debian's fonts-noto-color-emoji, fonts-symbola and unicode-data.

    tools/make_demo_assets.py --work /tmp/demo-work --out demo

Stages: pictures, vae, decoder, text, pack, base, ship. Each can be run alone (--stages), a training that was interrupted goes
on, and a finished stage is not repeated unless it is named. On two cores all of it takes about two hours.
"""

import argparse
import sys
from pathlib import Path

# Not needed here, and one built for another torch makes the import of transformers fail.
sys.modules["torchvision"] = None

import torch  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = ("pictures", "vae", "decoder", "text", "pack", "base", "ship")
PARTS = ("noto", "symbola_train", "symbola_val")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything in between")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "demo", help="folder to ship")
    parser.add_argument("--trireme", type=Path, default=REPOSITORY / "build" / "trireme")
    parser.add_argument("--stages", nargs="+", choices=STAGES, help="do these, though they are done")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=2, help="ranks of the base's training")
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--decoder-steps", type=int, default=1500)
    parser.add_argument("--text-steps", type=int, default=800)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for the base's training")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts/truetype"))
    parser.add_argument("--unicode", type=Path, default=Path("/usr/share/unicode"))
    parser.add_argument("--doc", type=Path, default=Path("/usr/share/doc"), help="where the fonts' licences lie")
    return parser.parse_args()


def find_one(folder: Path, pattern: str, package: str) -> Path:
    found = sorted(folder.rglob(pattern))
    if not found:
        sys.exit(f"error: no {pattern} under {folder}. Install it: apt-get install {package}")
    return found[0]


def make_pictures(args: argparse.Namespace, base: Path) -> None:
    import demo_pictures

    noto = find_one(args.fonts, "NotoColorEmoji.ttf", "fonts-noto-color-emoji")
    symbola = find_one(args.fonts, "Symbola*.ttf", "fonts-symbola")
    find_one(args.unicode, "emoji-test.txt", "unicode-data")
    demo_pictures.build(args.work / "pictures", noto, symbola, args.unicode)


def make_vae(args: argparse.Namespace, base: Path) -> None:
    import demo_vae

    demo_vae.build(args.work / "pictures", base / "vae", args.work, args.vae_steps)


def make_decoder(args: argparse.Namespace, base: Path) -> None:
    import demo_vae

    demo_vae.sharpen(args.work / "pictures", base / "vae", args.work, args.decoder_steps)


def make_text(args: argparse.Namespace, base: Path) -> None:
    import demo_base
    import demo_text

    demo_text.build(args.work / "pictures", base, args.work, args.text_steps)
    demo_base.write_configs(base, demo_text.WIDTH)


def make_pack(args: argparse.Namespace, base: Path) -> None:
    import demo_base

    for part in PARTS:
        demo_base.pack(args.trireme, base, args.work / "pictures" / part, args.work / f"{part}.h5")


def make_base(args: argparse.Namespace, base: Path) -> None:
    import demo_base

    config = REPOSITORY / "configs" / "demo_base.toml"
    run_dir = args.work / "base_run"
    checkpoint = demo_base.train(
        args.trireme, config, base, args.work / "noto.h5", run_dir, args.ranks, args.set
    )
    demo_base.adopt(checkpoint, base)


def make_ship(args: argparse.Namespace, base: Path) -> None:
    import demo_base

    data = {name: args.work / f"{name}.h5" for name in ("symbola_train", "symbola_val")}
    packages = {"noto": "fonts-noto-color-emoji", "symbola": "fonts-symbola"}
    licences = {name: args.doc / package / "copyright" for name, package in packages.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    demo_base.ship(base, data, licences, args.out)


def main() -> None:
    args = arguments()
    args.work = args.work.resolve()
    torch.set_num_threads(args.threads)
    base = args.work / "base"
    base.mkdir(parents=True, exist_ok=True)
    functions = (make_pictures, make_vae, make_decoder, make_text, make_pack, make_base, make_ship)
    makers = dict(zip(STAGES, functions, strict=True))
    for stage in STAGES:
        done = args.work / f"{stage}.done"
        if stage not in args.stages if args.stages else done.exists():
            continue
        print(f"== {stage}", flush=True)
        makers[stage](args, base)
        done.touch()


if __name__ == "__main__":
    main()
