"""What the first cell of every notebook calls: seeds, device, how much work this machine can do."""

import contextlib
import importlib
import importlib.metadata
import random
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import warnings
from pathlib import Path

import numpy as np
import torch
from packaging.requirements import InvalidRequirement, Requirement

from course import network
from course.facecode import resolve_device
from course.files import quiet  # noqa: F401 - notebooks ask setup

ROOT = Path(__file__).resolve().parents[2]


def start(seed=0):
    """Seed everything, install what Colab lacks, and say in one line what the notebook runs on."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still use the global one
    torch.manual_seed(seed)
    if on_colab():
        install_missing()
        from google.colab import output

        output.enable_custom_widget_manager()
    elif missing := missing_packages():
        print(f"Not installed here: {', '.join(missing)}. What needs them will fail; to get them, "
              f"type %pip install {' '.join(shlex.quote(m) for m in missing)}")  # fmt: skip
    where = "GPU" if device().type == "cuda" else "CPU"
    print(f"Ready on the {where}: expect the {where} minutes on the card above.")


def missing_packages(pyproject=ROOT / "pyproject.toml"):
    """Requirements of the course that nothing here fulfils, as pip wants them."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    missing = []
    for requirement in project["dependencies"]:
        name = re.match(r"[\w.-]+", requirement).group()
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement.split(";")[0].strip())
    return missing


def install_missing():
    """Install what is missing; whatever is here (torch and numpy above all) is held where it is.

    pytorch3d is not among the course's needs and never waited for: our own rasterizer stands in.
    Raises ConnectionError where the packages cannot be had.
    """
    missing = missing_packages()
    if not missing:
        return
    names = ", ".join(missing)
    network.need_packages(f"{names} have to be installed")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "held.txt"
        constraints.write_text("\n".join(held()), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--timeout", str(network.SILENCE), "--retries", "0"]  # fmt: skip
        done = subprocess.run([*pip, "-c", str(constraints), *missing], check=False)
    if done.returncode:
        raise ConnectionError(f"pip could not install {names}, its last line says why; connect to "
                              "the network, then run this cell again.")  # fmt: skip
    importlib.invalidate_caches()


def held():
    """Every installed package as pip's constraint ``name==version``."""
    found = {}
    for one in importlib.metadata.distributions():
        with contextlib.suppress(InvalidRequirement):  # the system's own may have odd names
            line = f"{one.metadata['Name']}=={one.version}"
            found.setdefault(Requirement(line).name.lower(), line)
    return list(found.values())


def on_colab():
    return "google.colab" in sys.modules


def device():
    """CUDA where there is one, else the CPU."""
    return resolve_device()


def fitting(load, *args, **options):
    """Weights as ``load(*args, **options)`` reads them, or None and a printed sentence: where they
    are not here, or were made for another head."""
    try:
        return load(*args, **options)
    except (FileNotFoundError, ValueError) as error:
        print(f"Going on without it: {error}")
        return None


def budget(cpu, gpu):
    """How much work a cell does: ``cpu`` on a CPU, ``gpu`` on a GPU."""
    return gpu if device().type == "cuda" else cpu
