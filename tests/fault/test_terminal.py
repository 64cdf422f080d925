"""What a person sees: one rewritten line on a terminal, few plain lines elsewhere. A real pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
import tiny_run


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    model = tiny_run.write_model(folder / "model")
    dataset = tiny_run.write_dataset(folder / "data.h5")
    return tiny_run.write_config(folder / "config.toml", model, dataset, folder / "run", run={"steps": 12},
                                 eval={"every_steps": 6}, checkpoint={"every_steps": 0})


def on_terminal(command, columns, **environment):
    """What the command writes to a terminal of that width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True,
                               env=dict(tiny_run.ENVIRONMENT, TERM="xterm", **environment))
    os.close(slave)
    output = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # The last writer has gone.
            break
        if not part:
            break
        output += part
    os.close(master)
    assert process.wait(timeout=60) == 0, output.decode()
    return output.decode()


def screen(output):
    """The lines that a terminal shows in the end: each after its last carriage return, erasures done."""
    return [re.split(r"\r\x1b\[K|\r(?!\n)", line)[-1] for line in output.replace("\r\n", "\n").split("\n")]


@pytest.mark.parametrize("columns", [60, 100])
def test_progress_is_one_line_that_is_rewritten(config, columns):
    output = on_terminal([tiny_run.TRIREME, "launch", config, "-n", "2", "--fresh"], columns)
    shown = re.findall(r"\r\x1b\[K([^\r\n\x1b]*step \d+/12[^\r\n\x1b]*)", output)
    assert shown and all(len(line) < columns for line in shown)
    assert all("loss" in line and "ETA" in line for line in shown)
    if columns == 100:
        assert all("img/s" in line and "data" in line and "lr" in line for line in shown)
    lines = screen(output)
    assert not any("/12" in line for line in lines), "the progress line is gone at the end"
    text = "\n".join(lines)
    for part in ("run    ", "model  ", "data   36 training", "batch  8 = 2 ranks", "lr     ", "plan   12 steps",
                 "validation loss", "Where the time went: 12 steps"):
        assert part in text, part
    assert not any(re.match(r" +\d+ +\d\.\d+ +\d", line) for line in lines), "plain lines belong to the log file"


def test_elsewhere_lines_are_plain_and_few(config):
    done = tiny_run.run(2, "train", config, "--fresh")
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    steps = re.findall(r"^ +(\d+) +\d\.\d+ +\d\.\d+ +\d\.\d+e", done.stderr, re.M)
    assert steps[0] == "1" and steps[-1] == "12" and len(steps) <= 6
    assert re.search(r"^  backward +\d", done.stderr, re.M)


def test_a_shell_that_redirects_gets_no_control_characters(config, tmp_path):
    log = tmp_path / "log"
    on_terminal(["sh", "-c", f"{' '.join(tiny_run.MPIRUN)} -np 2 {tiny_run.TRIREME} train {config} --fresh 2>{log}"], 80)
    text = log.read_text()
    assert "Where the time went" in text and "\x1b" not in text and "\r" not in text


def test_quiet_says_nothing_but_the_log_has_it(config):
    done = tiny_run.run(0, "launch", config, "-n", "2", "--fresh", "--quiet")
    assert done.stdout == "" and done.stderr == ""
    log = (config.parent / "run" / "log.txt").read_text()
    assert "Where the time went" in log and "plan   12 steps" in log
