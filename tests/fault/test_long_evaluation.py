"""Ranks whose share of an evaluation is long, and ranks that have none, beside a deadline for waits that is short."""

import time

import pytest
import tiny_run

DEADLINE = 1.5  # Seconds that a rank may wait inside a collective.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network that takes seconds over its one validation batch."""
    folder = tmp_path_factory.mktemp("long")
    model = tiny_run.write_model(folder / "model", block_out_channels=(32, 32, 32, 32),
                                 down_block_types=("DownBlock2D",) * 3 + ("CrossAttnDownBlock2D",),
                                 up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * 3)
    dataset = tiny_run.write_dataset(folder / "data.h5", samples=32, height=128, width=128)
    config = tiny_run.write_config(folder / "config.toml", model, dataset, folder / "run", run={"steps": 1},
                                   data={"validation_fraction": 0.5}, batch={"global": 1},
                                   eval={"every_steps": 0, "timesteps": 1}, checkpoint={"every_steps": 0})
    tiny_run.run(1, "train", config)
    return folder / "run"


def test_no_rank_waits_for_anothers_share_inside_a_collective(checkpoint, monkeypatch):
    """The only batch is rank 0's: the others have nothing to do for longer than a wait may last."""
    monkeypatch.setitem(tiny_run.ENVIRONMENT, "TRIREME_TIMEOUT_SECONDS", str(DEADLINE))
    start = time.monotonic()
    done = tiny_run.run(4, "eval", checkpoint)
    assert time.monotonic() - start > 2 * DEADLINE, "too quick to prove anything: make the pictures larger"
    assert "validation loss" in done.stdout
