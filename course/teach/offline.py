"""``python -m course offline FOLDER``: one folder from which a class can work without a network.

It holds the course, every package as a wheel, and ``start.py``, which sets a learner up from them.
"""

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from course import network
from course.files import WriteError, any_path, full, quiet, whole_folder

ROOT = Path(__file__).resolve().parents[2]
# what a learner gets; data/flame (somebody's licence), runs and results stay here
SHIPPED = ("course", "data", "notebooks", "tests", "Makefile", "conftest.py", "environment.yml",
           "pyproject.toml", "requirements.lock", "LICENSE", "README.md")  # fmt: skip
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "flame", ".tmp-*")
# name → (sys_platform of markers, tags of wheels that such a machine can install)
PLATFORMS = {
    "linux": ("linux", [f"manylinux_2_{k}_x86_64" for k in (28, 27, 24, 17, 12, 5)]
              + ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]),
    "windows": ("win32", ["win_amd64"]),
    "macos": ("darwin", ["macosx_14_0_arm64"]),  # pip adds the older ones; no torch for Intel
}  # fmt: skip
FIRST = """Open a terminal in this folder and type

    python start.py         (Windows: py start.py · macOS, Linux: python3 start.py)

It needs Python {versions} and no network. The first time takes a few minutes.
"""


def _version(text):
    if not re.fullmatch(r"3\.\d+", text):
        raise argparse.ArgumentTypeError(f"a version as in 3.12, not {text}")
    return text


def add_arguments(parser):
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("folder", help="the folder to make, for a USB stick or a shared drive")
    systems = "learners' systems: linux windows macos (default: this one's)"
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS, metavar="NAME", help=systems)
    versions = f"learners' versions of Python (default: {here})"
    parser.add_argument("--python", nargs="+", default=[here], metavar="3.X", type=_version,
                        help=versions)  # fmt: skip


def requirements(platform, version, lock=ROOT / "requirements.lock"):
    """The pinned packages, ``name==version``, that a platform with this Python installs."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    there = {"sys_platform": PLATFORMS[platform][0], "python_version": version}
    return [f"{p.name}{p.specifier}" for p in pins if not p.marker or p.marker.evaluate(there)]


def this_platform():
    """The name in ``PLATFORMS`` of the machine that this runs on."""
    return next(name for name, (system, _) in PLATFORMS.items() if sys.platform == system)


def download(wheels, platforms, versions):
    """Fetch wheels for the named platforms, or, where they are None, for this very machine.

    Raises WriteError where a disk is full, ValueError where pip fails for another reason.
    """
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check",
           "--timeout", str(network.SILENCE), "--retries", "0",
           "--only-binary", ":all:", "--dest", str(wheels), *["--quiet"] * quiet()]  # fmt: skip
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for platform, version in itertools.product(platforms or [None], versions):
        if platform is None and version == here:
            packages, target = requirements(this_platform(), version), []
        else:  # pip resolves nothing for a foreign machine; the lock file is complete
            platform = platform or this_platform()
            packages, tags = requirements(platform, version), PLATFORMS[platform][1]
            # pip takes 3.11 for 3.11.0, which some packages do not run on
            target = ["--no-deps", "--python-version", f"{version}.99"]
            target += [word for tag in tags for word in ("--platform", tag)]
        whose = f"{platform or 'this machine'} with Python {version}"
        print(f"{whose}: {len(packages)} packages …", flush=True)
        done = subprocess.run([*pip, *target, *packages], stderr=subprocess.PIPE, check=False)
        said = done.stderr.decode(errors="replace")
        print(said, end="", file=sys.stderr, flush=True)
        if done.returncode and full(said):
            raise WriteError(
                f"pip found the disk full, that of the folder or that of {tempfile.gettempdir()}; "
                "make room and type the same again."
            )
        if done.returncode:
            raise ValueError(
                f"pip did not get all wheels for {whose}; its last line says why. "
                "Is there a network today? If a package has no wheel for it, try another --python."
            )
        torch = [w.name for w in Path(wheels).glob(f"torch-*-cp{version.replace('.', '')}-*linux*")]
        if target and platform == "linux" and not any("+cpu" in name for name in torch):
            raise ValueError(
                "PyTorch for Linux came for CUDA, whose libraries are missing here. Set "
                "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu and try again."
            )


def fill(workplace, args):
    """The course, the wheels and what a learner begins with, in a folder."""
    for name in SHIPPED:
        source, target = ROOT / name, workplace / "face-course" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            try:
                shutil.copytree(source, target, ignore=LEFT_OUT)
            except shutil.Error as error:  # a reason for every file: the first will do
                raise OSError(error.args[0][0][-1]) from None
        else:
            shutil.copy2(source, target)
    download(workplace / "wheels", args.platforms, args.python)
    shutil.copy2(Path(__file__).with_name("offline_start.py"), workplace / "start.py")
    text = FIRST.format(versions=" or ".join(args.python))
    (workplace / "READ ME FIRST.txt").write_text(text, encoding="utf-8")


def run(args):
    """Make the folder; exit code 0. Raises ValueError, ConnectionError or WriteError."""
    folder = any_path(args.folder).resolve()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is there already, and not empty; name a new folder.")
    if any(folder.is_relative_to(ROOT / name) for name in SHIPPED):
        raise ValueError(f"{folder} is inside what is copied; name a folder elsewhere.")
    try:
        network.need_packages("The wheels have to be fetched")
        with whole_folder(folder) as workplace:
            fill(workplace, args)
    except KeyboardInterrupt:
        if (folder / "start.py").is_file():
            raise
        raise KeyboardInterrupt(f"nothing is left of it in {folder}") from None
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    print(f"{folder}: {size:.1f} GB. A learner copies it and types `python start.py` in it.")
    return 0
