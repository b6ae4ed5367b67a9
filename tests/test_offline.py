"""The folder for a class without a network, with pip's part left out; start.py's first words."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from course.__main__ import main
from course.teach import offline

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(offline.network, "need_packages", lambda what: None)


@pytest.fixture
def pip(monkeypatch):
    """Every pip command, instead of running it; a wheel of torch appears where it would."""
    ran = []

    def run(command, stderr, check):
        ran.append(command)
        wheels = offline.Path(command[command.index("--dest") + 1])
        wheels.mkdir(exist_ok=True)
        (wheels / "torch-2.13.0-cp399-cp399-any.whl").touch()
        return SimpleNamespace(returncode=0, stderr=b"")

    monkeypatch.setattr(offline.subprocess, "run", run)
    return ran


def make(folder, platforms=None, python=(HERE,)):
    return offline.run(SimpleNamespace(folder=str(folder), platforms=platforms, python=python))


def test_markers_are_the_learners():
    """A Windows learner needs pywinpty and no pexpect, whatever the teacher has."""
    windows, linux = (offline.requirements(name, "3.12") for name in ("windows", "linux"))
    names = [{line.split("=")[0] for line in lines} for lines in (windows, linux)]
    assert names[0] - names[1] >= {"pywinpty", "colorama"}
    assert names[1] - names[0] >= {"pexpect", "ptyprocess"}
    assert all(";" not in line for line in windows)


def test_the_folder_is_whole(tmp_path, pip, capsys, monkeypatch):
    monkeypatch.setattr(offline, "LEFT_OUT", shutil.ignore_patterns("*.pt", "__pycache__", "flame"))
    folder = tmp_path / "a stick"
    assert make(folder) == 0
    course = folder / "face-course"
    for name in ("notebooks/00_start_here.ipynb", "data/head.npz", "requirements.lock"):
        assert (course / name).is_file(), name
    assert not (course / "data" / "flame").exists()
    assert not (course / ".venv").exists()
    assert HERE in (folder / "READ ME FIRST.txt").read_text(encoding="utf-8")
    assert "--platform" not in pip[0], "pip resolves for this machine itself"
    assert "GB" in capsys.readouterr().out


def test_foreign_machines(tmp_path, pip):
    offline.download(tmp_path / "wheels", ["windows", "macos"], ["3.11", "3.13"])
    assert len(pip) == 4
    for command in pip:
        assert "--no-deps" in command
        assert "--platform" in command
    assert any("win_amd64" in command and "3.13.99" in command for command in pip)
    with pytest.raises(ValueError, match=r"PIP_EXTRA_INDEX_URL=https://download\.pytorch\.org"):
        offline.download(tmp_path / "wheels", ["linux"], ["3.12"])


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="pip’s own".encode())
    monkeypatch.setattr(offline.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(offline, "SHIPPED", ("LICENSE",))
    with pytest.raises(ValueError, match="pip did not get all wheels"):
        make(tmp_path / "stick")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_that_nothing_is_left(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "stick"
    monkeypatch.setattr(offline, "SHIPPED", ("LICENSE",))
    monkeypatch.setattr(offline.subprocess, "run", interrupted)
    assert main(["offline", str(folder)]) == 130
    assert capsys.readouterr().err == f"\noffline: stopped; nothing is left of it in {folder}.\n"
    assert not list(tmp_path.iterdir())


def test_other_errors_of_copying_are_one_line(tmp_path, monkeypatch):
    """A stick that is pulled out: the first of many."""
    why = [("a", "b", f"[Errno 5] Input/output error: '{k}'") for k in range(99)]

    def pulled(*_, **__):
        raise shutil.Error(why)

    monkeypatch.setattr(offline.shutil, "copytree", pulled)
    with pytest.raises(OSError, match=r"^\[Errno 5\] Input/output error: '0'$"):
        make(tmp_path / "stick")
    assert not list(tmp_path.iterdir())


def test_refuses_folders_in_use(tmp_path):
    (tmp_path / "mine.txt").touch()
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ValueError, match="not empty"):
            make(folder)
    with pytest.raises(ValueError, match="inside what is copied"):
        make(offline.ROOT / "data" / "stick")


def test_start_says_which_python_it_has_wheels_for(tmp_path, pip, monkeypatch):
    monkeypatch.setattr(offline, "SHIPPED", ("LICENSE",))
    make(tmp_path / "stick")
    monkeypatch.undo()
    done = subprocess.run([sys.executable, str(tmp_path / "stick" / "start.py")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"The wheels here are for Python 3.99; this is {HERE}. Use that one.\n"


def test_without_a_network_it_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(offline.network, "package_places", lambda: (["http://mirror"], []))
    monkeypatch.setattr(offline.network, "speaks", lambda index: False)
    with pytest.raises(ConnectionError, match=r"wheels .* does not answer; connect"):
        make(tmp_path / "stick")
    assert not (tmp_path / "stick").exists()


@pytest.mark.parametrize("version", ["abc", "2.7", "3.12.4"])
def test_versions_are_3_point_something(version, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["offline", str(tmp_path / "stick"), "--python", version])
    assert f"a version as in 3.12, not {version}" in capsys.readouterr().err
