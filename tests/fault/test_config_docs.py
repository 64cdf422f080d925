"""docs/config.md lists every key with its default, and no other."""

import pathlib
import re

from tiny_run import run, write_config, write_dataset, write_model

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "config.md"


def test_every_key_is_in_the_table(tmp_path):
    config = write_config(tmp_path / "c.toml", write_model(tmp_path), write_dataset(tmp_path / "d.h5"), tmp_path / "run",
                          run={"steps": 1}, eval={"every_steps": 0})
    given = set(re.findall(r"^(\w+) =", config.read_text(), re.M))
    run(0, "train", config)
    table, resolved = "", {}
    for line in (tmp_path / "run" / "config.toml").read_text().splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif " = " in line:
            key, value = line.split(" = ", 1)
            resolved[f"{table}.{key}"] = value
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", PAGE.read_text(), re.M))
    exclusive = {"run.epochs", "batch.per_rank", "model.config"}  # Absent from the file.
    assert set(rows) - exclusive == set(resolved)
    wrong = {key: (rows[key], value) for key, value in resolved.items()
             if key.split(".")[1] not in given and rows[key].strip("`") not in (value, "–")}
    assert not wrong
