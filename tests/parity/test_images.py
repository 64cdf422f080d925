"""Pictures: read, laid over white and resized to the same bits as Pillow does it."""
import io
import os
import random
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image


class Probe:
    """The image_probe program, one command at a time."""

    def __init__(self, folder):
        self.folder = folder
        program = os.path.join(os.environ["TRIREME_BUILD"], "tests", "image_probe")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def run(self, command, file, *arguments):
        out = self.folder / "out.raw"
        line = " ".join([command, str(file), str(out), *map(str, arguments)])
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().rstrip("\n")
        assert answer, f"image_probe ended (code {self.process.poll()}) at: {line}"
        if answer.startswith("error "):
            return answer
        width, height = map(int, answer.split()[1:])
        return np.frombuffer(out.read_bytes(), np.uint8).reshape(height, width, 3)


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    return Probe(tmp_path_factory.mktemp("images"))


def over_white(image):
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def noise(rng, width, height, mode="RGB"):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0], mode)


def smooth(rng, width, height, mode="RGB"):
    return noise(rng, 1 + width // 8, 1 + height // 8, mode).resize((width, height), Image.BICUBIC)


def lanczos(image, size):
    """Horizontally first. In one call, Pillow 13 takes the vertical pass first for some sizes."""
    return image.resize((size[0], image.height), Image.LANCZOS).resize(size, Image.LANCZOS)


def same(got, image):
    assert not isinstance(got, str), got
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width, height, depth, colour, rows, palette=None, transparency=None, interlace=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    out = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    if palette is not None:
        out += png_chunk(b"PLTE", palette)
    if transparency is not None:
        out += png_chunk(b"tRNS", transparency)
    out += png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(row) for row in rows)))
    return out + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes(probe, tmp_path, mode):
    rng = np.random.default_rng(1)
    for width, height in [(1, 1), (7, 5), (33, 18)]:
        image = noise(rng, width, height, "RGBA").convert(mode)
        image.save(tmp_path / "a.png")
        same(probe.run("read", tmp_path / "a.png"), over_white(Image.open(tmp_path / "a.png")))


def test_every_colour_and_alpha(probe, tmp_path):
    colour, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    Image.fromarray(np.dstack([colour, 255 - colour, colour // 2, alpha]), "RGBA").save(
        tmp_path / "a.png")
    same(probe.run("read", tmp_path / "a.png"), over_white(Image.open(tmp_path / "a.png")))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_palette_depths_with_transparency(probe, tmp_path, depth):
    rng = random.Random(depth)
    colours = 1 << depth
    palette = rng.randbytes(3 * colours)
    alphas = rng.randbytes(max(1, colours // 2))  # The rest is opaque.
    rows = [rng.randbytes((13 * depth + 7) // 8) for _ in range(9)]
    for transparency in (None, alphas):
        data = make_png(13, 9, depth, 3, rows, palette, transparency)
        (tmp_path / "a.png").write_bytes(data)
        same(probe.run("read", tmp_path / "a.png"), over_white(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_grey_below_a_byte(probe, tmp_path, depth):
    rng = random.Random(depth)
    data = make_png(13, 9, depth, 0, [rng.randbytes((13 * depth + 7) // 8) for _ in range(9)])
    (tmp_path / "a.png").write_bytes(data)
    same(probe.run("read", tmp_path / "a.png"), over_white(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("colour,channels", [(2, 3), (4, 2), (6, 4)])
def test_png_sixteen_bits_keep_the_high_byte(probe, tmp_path, colour, channels):
    rng = random.Random(colour)
    data = make_png(6, 5, 16, colour, [rng.randbytes(6 * channels * 2) for _ in range(5)])
    (tmp_path / "a.png").write_bytes(data)
    same(probe.run("read", tmp_path / "a.png"), over_white(Image.open(io.BytesIO(data))))


def test_png_sixteen_bit_grey_keeps_the_high_byte(probe, tmp_path):
    # Not compared with Pillow, whose conversion of this mode to RGB saturates above 255.
    values = [0, 0x1234, 0x80FF, 0xFFFF]
    data = make_png(4, 1, 16, 0, [struct.pack(">4H", *values)])
    (tmp_path / "a.png").write_bytes(data)
    got = probe.run("read", tmp_path / "a.png")
    assert got[0, :, 0].tolist() == [value >> 8 for value in values]


def test_png_transparent_colour_becomes_white(probe, tmp_path):
    rows = [struct.pack("6B", 10, 20, 30, 10, 20, 31)]
    data = make_png(2, 1, 8, 2, rows, transparency=struct.pack(">3H", 10, 20, 30))
    (tmp_path / "a.png").write_bytes(data)
    assert probe.run("read", tmp_path / "a.png").tolist() == [[[255] * 3, [10, 20, 31]]]


def test_png_interlaced(probe, tmp_path):
    # One pixel column wide, so that Adam7's passes are rows: 1, 5 | 3, 7 | 2, 4, 6, 8.
    rng = random.Random(5)
    pixels = [rng.randbytes(4) for _ in range(8)]
    order = [0, 4, 2, 6, 1, 3, 5, 7]
    data = make_png(1, 8, 8, 6, [pixels[i] for i in order], interlace=1)
    (tmp_path / "a.png").write_bytes(data)
    image = Image.open(io.BytesIO(data))
    assert np.asarray(image).reshape(8, 4).tolist() == [list(pixel) for pixel in pixels]
    same(probe.run("read", tmp_path / "a.png"), over_white(image))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 1},
                                     {"progressive": True}, {"optimize": True}])
def test_jpeg(probe, tmp_path, mode, options):
    rng = np.random.default_rng(2)
    for width, height in [(1, 1), (16, 16), (61, 47)]:
        smooth(rng, width, height, mode).save(tmp_path / "a.jpg", **options)
        same(probe.run("read", tmp_path / "a.jpg"), Image.open(tmp_path / "a.jpg"))


def test_jpeg_rotation_tag_is_ignored_and_name_does_not_matter(probe, tmp_path):
    image = smooth(np.random.default_rng(3), 20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    got = probe.run("read", tmp_path / "a.png")
    assert got.shape == (10, 20, 3)
    same(got, Image.open(tmp_path / "a.png"))


def test_damaged_jpegs_are_errors_or_pictures(probe, tmp_path):
    rng = random.Random(4)
    smooth(np.random.default_rng(4), 40, 40).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    cut = tmp_path / "cut.jpg"
    for size in range(0, len(whole), 7):
        cut.write_bytes(whole[:size])
        got = probe.run("read", cut)
        assert isinstance(got, str) and "cut.jpg" in got, f"cut to {size} bytes was read"
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        cut.write_bytes(bytes(damaged))
        probe.run("read", cut)


def test_lanczos_equals_pillow_to_the_bit(probe, tmp_path):
    rng = np.random.default_rng(5)
    for trial in range(60):
        width, height, new_width, new_height = (int(rng.integers(1, 200)) for _ in range(4))
        image = noise(rng, width, height) if trial % 2 else smooth(rng, width, height)
        image.save(tmp_path / "a.png", compress_level=1)
        want = lanczos(image, (new_width, new_height))
        same(probe.run("resize", tmp_path / "a.png", new_width, new_height), want)


def test_lanczos_equals_pillow_on_a_large_picture(probe, tmp_path):
    image = smooth(np.random.default_rng(6), 3000, 2001)
    image.save(tmp_path / "a.png", compress_level=1)
    same(probe.run("resize", tmp_path / "a.png", 767, 512), lanczos(image, (767, 512)))


def test_crop_follows_the_rule(probe, tmp_path):
    rng = np.random.default_rng(7)
    sizes = [(int(rng.integers(2, 300)), int(rng.integers(2, 300))) for _ in range(40)]
    sizes += [(128, 133), (133, 128), (64, 64), (65, 64), (1, 9), (136, 128)]  # 133 * 64 / 128 = 66.5
    for width, height in sizes:
        image = smooth(rng, width, height)
        image.save(tmp_path / "a.png", compress_level=1)
        short = min(width, height)
        new = (round(width * 64 / short), round(height * 64 / short))
        left, top = (new[0] - 64) // 2, (new[1] - 64) // 2
        want = lanczos(image, new).crop((left, top, left + 64, top + 64))
        same(probe.run("crop", tmp_path / "a.png", 64), want)


def test_written_png_is_what_pillow_reads(probe, tmp_path):
    image = noise(np.random.default_rng(8), 31, 17)
    image.save(tmp_path / "a.png")
    probe.run("write", tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.asarray(image))
