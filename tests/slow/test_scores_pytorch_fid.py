"""FID against pytorch-fid's own function, whose matrix root takes a minute.

ctest --test-dir build -L slow -R test_scores_pytorch_fid --output-on-failure
"""

import json
import pathlib
import sys

import numpy as np
import pytest
from tiny_run import run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "parity"))
from test_scores import folders, frechet_of, reference_features, weights  # noqa: E402, F401


def test_fid_is_that_of_pytorch_fid(weights, folders):  # noqa: F811
    from pytorch_fid.fid_score import calculate_frechet_distance

    sets, (a, b) = folders
    features = [reference_features("pytorch_fid", weights[0], images).double() for images in sets]
    arrays = [f.numpy() for f in features]
    fid = calculate_frechet_distance(*(part for f in arrays for part in (f.mean(0), np.cov(f, rowvar=False))))
    assert frechet_of(features) == pytest.approx(fid, rel=1e-5)
    ours = json.loads(run(0, "eval", a, "--reference", b, "--json", "--inception", weights[1]).stdout)
    assert ours["fid"] == pytest.approx(fid, rel=1e-3)
