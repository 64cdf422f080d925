"""cmake --install, the installed program in another place, and the example that uses the library part."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_run import ENVIRONMENT, MPIRUN

BUILD = os.environ["TRIREME_BUILD"]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "data_parallel"


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=500, env=ENVIRONMENT,
                          **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Installed in one place, then moved to another."""
    first = tmp_path_factory.mktemp("install") / "first"
    run("cmake", "--install", BUILD, "--prefix", first)
    moved = first.with_name("moved")
    shutil.move(first, moved)
    return moved


def test_the_moved_program_runs_and_holds_what_an_installation_should(prefix):
    assert run(prefix / "bin" / "trireme", "--version").startswith("trireme ")
    for name in ["share/bash-completion/completions/trireme", "share/trireme/slurm/multi_node.sbatch",
                 "include/trireme/trainer/reduce/data_parallel.h"]:
        assert (prefix / name).stat().st_size > 0, name
    dynamic = run("readelf", "-d", prefix / "bin" / "trireme")
    assert "$ORIGIN/../lib" in dynamic
    assert str(Path(BUILD).resolve()) + "]" not in dynamic


def test_a_foreign_model_trains_in_parallel_with_equal_results(prefix, tmp_path):
    assert len((EXAMPLE / "main.cc").read_text().splitlines()) < 60
    run("cmake", "-S", EXAMPLE, "-B", tmp_path, "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    losses = {ranks: [float(loss) for loss in re.findall(r"loss ([\d.]+)", run(*MPIRUN, "-np", ranks,
                                                                                tmp_path / "data_parallel"))]
              for ranks in (1, 2, 4)}
    assert len(losses[1]) == 4 and max(losses[1][1:3]) < losses[1][0] / 2  # Each of another batch.
    for ranks in (2, 4):
        assert losses[ranks] == pytest.approx(losses[1], rel=2e-3)  # Adam amplifies the last bits.
