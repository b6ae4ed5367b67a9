"""Ctrl-C in real processes: a clean message, exit code 130, nothing half-written, no orphans, and
the same command goes on."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import psutil
import pytest
import torch
from skimage.data import astronaut

from course import film, reconstruct
from course.__main__ import FINISHED, main
from course.experiments import run_grid
from course.workers import spread

ROOT = Path(__file__).parents[1]
PATIENCE = 240  # seconds, for a machine that does much else
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


def _listen():
    """Hear Ctrl-C, even if these tests run in the background, where shells silence it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def running(command):
    """A process in a group of its own, as a terminal's, with everything it started."""
    environment = os.environ | {"COURSE_QUIET": "1", "OMP_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True,
                               start_new_session=True, preexec_fn=_listen, **pipes)  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(condition, process, what):
    """Wait for a condition while a process runs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, what
        time.sleep(0.05)


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def alive(people):
    """Those that still run; what nobody has collected yet does not count."""
    found = []
    for one in people:
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def stopped(process, everybody=True, how=signal.SIGINT, told=FINISHED):
    """Press Ctrl-C, as a terminal does for the whole group or as ``kill``; what it says."""
    below = family(process)
    (os.killpg if everybody else os.kill)(process.pid, how)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output + errors
    assert re.fullmatch(rf"\s*\S+: stopped; {re.escape(told)}\.\n", errors)
    until(lambda: not alive(below), None, "orphans")
    return output


def course(*arguments):
    return [sys.executable, "-m", "course", *map(str, arguments)]


# ------------------------------------------------------------------ workers


def slow(folder, number):
    """A job that says that it is there, and takes long."""
    (Path(folder) / str(number)).touch()
    time.sleep(PATIENCE)


TREE = """
import sys
sys.path[:0] = {path!r}
from test_interrupt import slow
from course.workers import spread
from course import __main__
__main__._run = lambda argv: list(spread(slow, [({folder!r}, k) for k in range(4)], 2))
sys.exit(__main__.main(["tree"]))
"""


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -KILL"])
def test_workers_end_with_their_parent(how, tmp_path):
    code = TREE.format(path=[str(ROOT), str(ROOT / "tests")], folder=str(tmp_path))
    with running([sys.executable, "-c", code]) as process:
        until(lambda: len(list(tmp_path.iterdir())) == 2, process, "two workers at work")
        below = family(process)
        assert len(below) >= 2
        if how == "kill -KILL":
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            until(lambda: not alive(below), None, "orphans")
        else:
            stopped(process)
    assert len(list(tmp_path.iterdir())) == 2  # nobody began another job


def square(number):
    return number**2


def deadly(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_spread():
    jobs = [(k,) for k in range(5)]
    for workers in (1, 2):
        assert list(spread(square, jobs, workers, ordered=True)) == [0, 1, 4, 9, 16]
    assert list(spread(square, [])) == []
    with pytest.raises(OSError, match="worker process was killed"):
        list(spread(deadly, jobs, 2))


# ------------------------------------------------------------------ commands


def test_training_goes_on(tmp_path):
    def gan(epochs):
        return course("gan", "--n_epochs", epochs, "--per_epoch", 64, "--batch_size", 8,
                      "--sample_interval", 8, "--img_size", 8, "--images", tmp_path / "images",
                      "--save", tmp_path / "save")  # fmt: skip

    with running(gan(100_000)) as process:
        until(lambda: list(tmp_path.rglob("*.png")), process, "a first sheet")
        stopped(process)
    assert not list(tmp_path.rglob(".tmp-*"))
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "images").iterdir()}
    done = torch.load(tmp_path / "save" / "checkpoint.pt", weights_only=True)["step"]
    assert main(gan(done // 8 + 1)[3:]) == 0
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "images").iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"{done + 8:06d}.png"}


def test_building_the_head(tmp_path):
    path = tmp_path / "head.npz"
    path.write_bytes(b"the old one")
    with running(course("build-head", "--output", path)) as process:
        # itself, its child with single-threaded algebra, and its workers
        until(lambda: len(family(process)) >= 3, process, "workers")
        stopped(process, False, signal.SIGTERM)
    assert [p.name for p in tmp_path.iterdir()] == ["head.npz"]
    assert path.read_bytes() == b"the old one"


def patient(setting, seed):
    """A run that takes long from the third on, unless there is hurry."""
    if seed > 1 and not (Path(setting["folder"]) / "hurry").exists():
        time.sleep(PATIENCE)
    return [{"steps": 1}]


GRID = """
import sys
sys.path[:0] = {path!r}
from test_interrupt import patient
from course import __main__, experiments
grid = lambda: experiments.run_grid(patient, [{{"folder": {folder!r}}}], range(4), {folder!r}, 2)
__main__._run = lambda argv: grid()
sys.exit(__main__.main(["experiment"]))
"""


def test_an_experiment_goes_on(tmp_path):
    code = GRID.format(path=[str(ROOT), str(ROOT / "tests")], folder=str(tmp_path))
    with running([sys.executable, "-c", code]) as process:
        until(lambda: len(list(tmp_path.glob("*.json"))) == 2, process, "two finished runs")
        stopped(process)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.json")}
    (tmp_path / "hurry").touch()
    rows = run_grid(patient, [{"folder": str(tmp_path)}], range(4), tmp_path)
    assert [row["seed"] for row in rows] == [0, 1, 2, 3]
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.json")}
    assert len(after) == 4
    assert before == {name: after[name] for name in before}
    assert not list(tmp_path.rglob(".tmp-*"))


def test_fitting(tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for name in "ab":
        iio.imwrite(pictures / f"{name}.png", astronaut()[:300, 60:360])
    with running(course("reconstruct", "-i", pictures, "-s", out, "--detector", "built-in",
                        "--saveVis", "false")) as process:  # fmt: skip
        until(lambda: (out / "a").is_dir(), process, "the first face")
        stopped(process, told=f"{FINISHED}; the same with --resume goes on")
    assert [p.name for p in out.iterdir()] == ["a"]
    jobs = reconstruct.collect([str(pictures)])
    parser = reconstruct.argparse.ArgumentParser()
    reconstruct.add_arguments(parser)
    args = parser.parse_args(["-s", str(out), "--resume"])
    assert [name for name, _ in reconstruct.missing(jobs, args)] == ["b"]
    assert len(reconstruct.missing(jobs, args, together=True)) == 2
    (out / "b").mkdir()
    (out / "b" / "teaser.gif").touch()  # a teaser's folder has no face in it
    assert [name for name, _ in reconstruct.missing(jobs, args)] == ["b"]


def test_a_teaser(tmp_path, monkeypatch, capsys):
    """Ctrl-C while its film is written."""
    iio.imwrite(tmp_path / "me.png", astronaut()[:300, 60:360])

    _listen()

    def pressed(path, frames, fps):
        Path(path).write_bytes(b"half")
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(film, "save_all", pressed)
    flags = ["--size", "32", "--detector", "built-in", "--no-refine", "--device", "cpu"]
    command = ["teaser", "-i", str(tmp_path / "me.png"), "-s", str(tmp_path / "out")]
    assert main([*command, *flags]) == 130
    assert "teaser: stopped" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
