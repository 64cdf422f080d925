"""Picture folders NAME.png + NAME.txt from the Noto Color Emoji and Symbola fonts.

Noto's pictures are the PNGs of the font's CBDT table, Symbola's are rendered by FreeType. Both are 64 x 64 RGB
over white; a character bears the same caption, its Unicode short name, in either font.
"""

import hashlib
import io
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

SIZE = 64
MARGIN = 3
HELD_OUT_IN = 10


def rule(code_point: int) -> int:
    """The number that decides all that is chosen by rule: SHA-256 of the code point written as U+XXXX."""
    return int.from_bytes(hashlib.sha256(f"U+{code_point:04X}".encode()).digest(), "big")


def held_out(code_point: int) -> bool:
    """True for the characters, about a tenth, that are never trained in Symbola's style."""
    return rule(code_point) % HELD_OUT_IN == 0


def captions(unicode_folder: Path) -> dict[int, str]:
    """Code point -> short name, for each emoji of a single code point in emoji-test.txt."""
    names = {}
    for line in (unicode_folder / "emoji" / "emoji-test.txt").read_text(encoding="utf-8").splitlines():
        if ";" not in line or line.startswith("#"):
            continue
        code, rest = line.split(";", 1)
        points = [int(word, 16) for word in code.split() if word != "FE0F"]
        if len(points) == 1:
            names.setdefault(points[0], rest.split("#", 1)[1].split(maxsplit=2)[2].strip().lower())
    return names


def on_square(picture: Image.Image) -> Image.Image:
    """The picture over white, centred on a square as large as its longer side."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    corner = ((side - picture.width) // 2, (side - picture.height) // 2)
    square.paste(picture, corner, picture.getchannel("A"))
    return square


def noto(font_file: Path, wanted: dict[int, str]):
    """Yields (code point, picture) for each wanted character of the CBDT table."""
    font = TTFont(font_file)
    bitmaps = font["CBDT"].strikeData[0]
    for point, glyph in sorted(font.getBestCmap().items()):
        if point not in wanted or glyph not in bitmaps:
            continue
        bitmap = bitmaps[glyph]
        bitmap.ensureDecompiled()
        picture = Image.open(io.BytesIO(bitmap.imageData)).convert("RGBA")
        if picture.getchannel("A").getextrema()[1] == 0:
            continue
        yield point, on_square(picture).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def symbola(font_file: Path, wanted: dict[int, str]):
    """Yields (code point, picture) for each wanted character that the font draws, fitted to the square."""
    available = TTFont(font_file).getBestCmap()
    font = ImageFont.truetype(str(font_file), 4 * SIZE)
    inner = SIZE - 2 * MARGIN
    for point in sorted(wanted):
        if point not in available:
            continue
        box = font.getbbox(chr(point))
        width, height = box[2] - box[0], box[3] - box[1]
        if width < SIZE // 2 or height < SIZE // 2:
            continue
        drawing = Image.new("L", (width, height), 255)
        ImageDraw.Draw(drawing).text((-box[0], -box[1]), chr(point), font=font, fill=0)
        scale = inner / max(width, height)
        fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
        drawing = drawing.resize(fitted, Image.Resampling.LANCZOS)
        picture = Image.new("RGB", (SIZE, SIZE), "white")
        picture.paste(drawing.convert("RGB"), ((SIZE - fitted[0]) // 2, (SIZE - fitted[1]) // 2))
        yield point, picture


def write_folder(folder: Path, pictures, names: dict[int, str], numbered: str = "") -> None:
    """Writes NAME.png and NAME.txt; `numbered` is the format of a prefix that keeps the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (point, picture) in enumerate(pictures):
        stem = f"{numbered.format(number)}u{point:05x}"
        picture.save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text(names[point], encoding="utf-8")
    print(f"{folder.name}: {len(pictures)} pictures", flush=True)


def build(out: Path, noto_font: Path, symbola_font: Path, unicode_folder: Path) -> None:
    """Writes OUT/{noto,symbola_train,symbola_val}; Symbola's characters are those that Noto has too.

    The held-out ones are numbered in the order of rule(), so that the first of them are a choice without taste.
    """
    names = captions(unicode_folder)
    colour = list(noto(noto_font, names))
    drawings = list(symbola(symbola_font, {point: names[point] for point, _ in colour}))
    held = sorted((pair for pair in drawings if held_out(pair[0])), key=lambda pair: rule(pair[0]))
    write_folder(out / "noto", colour, names)
    write_folder(out / "symbola_train", [pair for pair in drawings if not held_out(pair[0])], names)
    write_folder(out / "symbola_val", held, names, "{:03d}-")
