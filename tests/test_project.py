"""The project's own files: dependencies in step, code in order, commands that exist."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}


def requirements():
    """Every requirement of pyproject.toml, all extras included."""
    lines = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    return {Requirement(line).name: Requirement(line) for line in lines}


def lock():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {r.name.lower().replace("_", "-"): r for r in found}


def test_lock_pins_exactly_and_meets_the_bounds():
    locked = lock()
    for name, requirement in locked.items():
        pins = [s for s in requirement.specifier if s.operator == "=="]
        assert len(pins) == 1, name
        assert "+" not in pins[0].version, name
    for name, requirement in requirements().items():
        pin = next(iter(locked[name.lower()].specifier)).version
        assert Version(pin) in requirement.specifier, name
    assert "torch==2.13.0" in (ROOT / "requirements.lock").read_text().splitlines()


def test_bounds_are_lower_bounds():
    """Colab must never be made to downgrade: only opencv has a ceiling, for its cascades."""
    for name, requirement in requirements().items():
        operators = {s.operator for s in requirement.specifier}
        assert ">=" in operators, name
        assert operators <= ({">=", "<"} if name == "opencv-python" else {">="}), name


def test_environment_yml_is_in_step():
    text = (ROOT / "environment.yml").read_text()
    lines = re.findall(r"^\s*- ([a-z][\w.-]*[^#\n]*?)\s*(?:#.*)?$", text, re.MULTILINE)
    conda = {}
    for line in lines:
        if line.startswith("-e") or line.endswith(":") or "=" not in line:
            continue
        requirement = Requirement(line)
        conda[requirement.name] = requirement
    for name, requirement in requirements().items():
        there = conda[CONDA_NAMES.get(name, name)]
        assert there.specifier == requirement.specifier, name
    assert "pytorch3d" in conda
    # pip's part is a requirements file, where an option behind "-e ." is an error
    assert re.findall(r"^\s*- (-e.*?)\s*$", text, re.MULTILINE) == ["-e ."]
    assert str(conda["python"].specifier) == PROJECT["requires-python"]


def test_test_needs_include_the_lab():
    extras = PROJECT["optional-dependencies"]
    assert set(extras["lab"]) <= set(extras["test"])


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_has_its_floors():
    """Nothing imports upwards (see the README's picture of the package)."""
    floors = [
        {"files", "facecode", "safe_pickle", "flame_files", "other_heads", "registration"},
        {"flame", "camera", "landmarks"},
        {"rasterize", "rasterize_numba", "rasterize_pytorch3d", "photo", "head_transfer"},
        {"silhouette", "silhouette_numba", "head_completion"},
        {"render"},
        {"faces_scene", "faces_camera", "metrics", "export"},
        {"faces", "fit"},
        {"texture", "train"},
    ]
    level = {name: k for k, names in enumerate(floors) for name in names}
    for name, k in level.items():
        source = (ROOT / "course" / f"{name}.py").read_text()
        for used in re.findall(r"^(?:from|import) course\.?(\w*)", source, re.MULTILINE):
            assert level.get(used, -1) <= k, f"{name} imports {used}"


def test_readme_quotes_the_two_commands():
    text = (ROOT / "README.md").read_text()
    for command in ("make lab", "make test", "python -m course reconstruct"):
        assert command in text
    for path in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"#:]+)\"", text):
        target = path[0] or path[1]
        assert (ROOT / target).exists(), target


def test_every_command_has_help(capsys):
    from course.__main__ import COMMANDS, main

    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert "usage" in capsys.readouterr().out


def test_data_has_its_origins():
    text = (ROOT / "data" / "README.md").read_text()
    for path in (ROOT / "data").iterdir():
        if path.name not in ("README.md", "flame", ".gitignore"):
            assert path.name in text, path.name


def test_ci_calls_the_readmes_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_every_week_the_long_tests_run():
    text = (ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8")
    for command in ("steadiness.py", "fuzz_photo.py --count 10000"):
        assert f"tests/{command}" in text


def test_ci_has_the_oldest_and_the_newest_packages_and_colab():
    text = (ROOT / ".github" / "workflows" / "versions.yml").read_text(encoding="utf-8")
    jobs = {part.split(":")[0]: part for part in re.split(r"^  (?=\w+:)", text, flags=re.MULTILINE)}
    assert "--resolution lowest-direct" in jobs["oldest"]
    assert "--upgrade" in jobs["newest"]
    assert "COURSE_COLAB: full" in jobs["colab"]
    least = PROJECT["requires-python"].removeprefix(">=")
    assert f'python-version: "{least}"' in jobs["oldest"]
