"""docs/config.md has one table with every key: its default and its range are the program's."""

import pathlib
import re

import pytest
from tiny_run import run, write_config, write_dataset, write_model

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "config.md").read_text()
# key: default, range, effect, source, on resume
ROWS = {row[0]: row[1:] for row in re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|(.*?)\|$", PAGE, re.M)}
# key: values, as the generated page has them (which a test of its own compares with the program).
VALUES = dict(re.findall(r"^\| `(\w+\.\w+)` \| .*? \| (.*?) \| .*? \|$", (DOCS / "reference.md").read_text(), re.M))


def test_every_key_is_in_the_table_with_its_default(tmp_path):
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
    exclusive = {"run.epochs", "batch.per_rank", "model.config"}  # Absent from the file.
    assert set(ROWS) - exclusive == set(resolved)
    wrong = {key: (ROWS[key][0], value) for key, value in resolved.items()
             if key.split(".")[1] not in given and ROWS[key][0].strip("`") not in (value, "–")}
    assert not wrong


def test_it_is_one_table():
    lines = PAGE.splitlines()
    first = lines.index("| key | default | range | effect | source | on resume |")
    end = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    table = lines[first:end]
    assert sum(line.startswith("| `") for line in table) == len(ROWS) == len(VALUES)
    sections = [line for line in table if line.startswith("| **`[")]
    assert len(sections) == len({key.split(".")[0] for key in ROWS})
    assert all(effect for _, _, effect, _, _ in ROWS.values())


def number(text):
    return float(text.replace(",", "").replace("2⁶³ − 1", str(2**63 - 1)))


@pytest.mark.parametrize("key", sorted(VALUES))
def test_the_range_is_that_of_the_program(key):
    text, values = ROWS[key][1], VALUES[key]
    if values.startswith("`"):
        assert text == values
        return
    if values == "true or false":
        assert text == "`true`, `false`"
        return
    if "string" in values:
        return  # What it stands for says more.
    assert re.match("number" if "number" in values and "table" not in values else "integer|table|ascending", text.removeprefix("two ")), text
    bounds = re.search(r"in ([\[(])(\S+), (\S+)([\])])", values)
    low = bounds[2] if bounds else "0" if re.search("at least 0|greater than 0", values) else None
    shown = re.search(r"[≥>] ([\d,]+)|([\d,]+) …|[\[(]([\d,]+)|(0) or", text)
    if low is None:
        assert not shown
    elif key != "batch.grow_to":  # Its bound is the batch before.
        assert number(next(filter(None, shown.groups()))) == float(low)
        is_open = values.startswith("a number, greater") or bool(bounds and bounds[1] == "(")
        assert is_open == (">" in text or "(0" in text), text
    upper = re.search(r"… (2⁶³ − 1|[\d,]+)|, ([\d,]+)[\])]", text)
    if upper:
        limit = number(upper[1] or upper[2])
        assert limit == (float(bounds[3]) if bounds else float(2**63 - 1))
    elif bounds:
        assert float(bounds[3]) >= 100, "an upper bound that matters is shown"
