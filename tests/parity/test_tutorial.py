"""The tutorial's commands, as they stand there, with a handful of pictures."""

import os
import pathlib
import re
import subprocess
import sys

import h5py
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(sh|toml|python)\n(.*?)^```$", re.M | re.S)


def write_pictures(folder):
    """Twelve pictures of every shape, with captions."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(("fish", "boat", "sun", "moon", "tree", "house", "star", "cat", "dog", "bird", "cup", "hat")):
        height, width = 64 + 8 * (i % 4), 64 + 8 * (i % 3)
        pixels = np.full((height, width, 3), 255, np.uint8)
        pixels[12:-12, 16:-16] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {('red', 'blue')[i % 2]} {name}")


def test_the_commands_work_as_they_stand(tmp_path):
    program = pathlib.Path(os.environ["TRIREME"])
    (tmp_path / "build").symlink_to(program.parent)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    write_pictures(tmp_path / "pictures")
    script = "set -euo pipefail\n"
    pythons = []
    for language, text in BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text()):
        if language == "sh":
            script += text
        elif language == "toml":
            name = re.match(r"# (\S+)\n", text).group(1)
            script += f"cat > {name} <<'END'\n{text}END\n"
        else:
            pythons.append(text)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"

    with h5py.File(tmp_path / "pictures.h5") as f:
        assert len(f["latents"]) == 12
    assert "<svg" in (tmp_path / "runs" / "mine" / "report.html").read_text()
    assert Image.open(tmp_path / "fish.png").size[0] >= 64
    assert pythons
    for text in pythons:
        done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=200)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
