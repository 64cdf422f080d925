"""The report: whole, self-contained, and safe whatever a run is called."""

import html.parser
import json
import pathlib
import re

import h5py
import pytest
import tiny_run

ATTACK = "<script>alert(1)</script>\"' &amp; <img src=x onerror=y>"


class Page(html.parser.HTMLParser):
    """Collects elements, attributes and text; checks that elements close in order."""

    VOID = {"meta", "img", "br", "path", "line", "circle", "rect", "link", "wbr"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.addresses, self.text, self.open = [], [], [""], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if tag != "wbr":  # A word may break there, but it is one.
            self.text.append("")
        self.addresses += [v for k, v in attributes if k in ("src", "href")]
        assert not any(k.startswith("on") for k, _ in attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.text.append("")
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text[-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    model = tiny_run.write_model(folder / "model")
    dataset = tiny_run.write_dataset(folder / "data.h5")
    with h5py.File(dataset, "a") as f:
        f.attrs["vae"] = ATTACK
    for name, lr in (("a", 1e-3), ("b", 5e-4)):
        config = tiny_run.write_config(folder / f"{name}.toml", model, dataset, folder / name,
                                       run={"name": ATTACK, "steps": 3}, optim={"lr": lr})
        tiny_run.run(1, "train", config)
    return folder


def test_a_run_ends_with_a_report_of_everything(folder):
    text = (folder / "a" / "report.html").read_text()
    page = Page(text)
    seen = " ".join(page.text)
    for part in ("Loss", "Validation loss by timestep band", "Learning rate", "Gradient norm", "Configuration",
                 "Where the time went", "Data", "Environment", "Events", "finished", "optim.lr", "data.h5"):
        assert part in seen, part
    assert ATTACK in seen
    assert "script" not in page.elements and "link" not in page.elements
    assert all(re.match(r"#|data:image/png;base64,", address) for address in page.addresses)
    assert "svg" in page.elements and "prefers-color-scheme:dark" in text and 'name="viewport"' in text


def test_any_number_of_the_metrics_is_drawn(folder):
    with open(folder / "b" / "metrics.jsonl", "a") as f:
        f.write(json.dumps({"kind": "eval", "step": 3, "fid": 12.5, "val_loss_ema_band_0": 0.5, "overfit_gap": 0.1}) + "\n")
        f.write('{"kind":"train","step":4,"new_measure":1.5,"loss":null}\n{"kind":"tra')
    tiny_run.run(0, "report", folder / "b", "--out", folder / "b.html")
    seen = " ".join(Page((folder / "b.html").read_text()).text)
    for part in ("FID", "12.5", "Validation loss by timestep band, averaged weights", "Overfit gap", "New measure",
                 "1 line of"):
        assert part in seen, part


def test_a_comparison_shows_what_differs(folder):
    tiny_run.run(0, "report", folder / "a", folder / "b", "--out", folder / "both.html")
    page = Page((folder / "both.html").read_text())
    seen = " ".join(page.text)
    for part in ("What differs", "optim.lr", "0.0005", "by steps", "by samples", "by time"):
        assert part in seen, part
    assert {"a", "b"} <= set(page.text), "runs of one name are called by their folders"
    assert "optim.weight_decay" not in seen


def test_every_number_of_the_metrics_is_in_the_reference(folder):
    reference = (pathlib.Path(__file__).parents[2] / "docs" / "reference.md").read_text()
    for kind in ("train", "eval"):
        for name, value in tiny_run.metrics(folder / "a", kind)[-1].items():
            general = re.sub(r"_band_\d+$", "_band_K", name)
            assert not isinstance(value, (int, float)) or f"| `{general}` |" in reference, name


def test_a_folder_without_a_run_is_an_input_error(folder):
    done = tiny_run.run(0, "report", folder / "model", code=3)
    assert done.stderr.startswith("error: ") and "metrics.jsonl" in done.stderr
