"""What the first cell of every notebook calls: seeds, device, how much work this machine can do."""

import importlib
import importlib.metadata
import random
import re
import subprocess
import sys
import tempfile
import tomllib
import warnings
from pathlib import Path

import numpy as np
import torch

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
    """Install what is missing; what is here (torch and numpy above all) is held where it is."""
    missing = missing_packages()
    if not missing:
        return
    held = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    keep = [f"{n}=={held[n]}" for n in ("torch", "numpy", "scipy", "numba") if n in held]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "held.txt"
        constraints.write_text("\n".join(keep), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(constraints)]
        subprocess.run([*pip, *missing], check=True)
    importlib.invalidate_caches()


def on_colab():
    return "google.colab" in sys.modules


def device():
    """CUDA where there is one, else the CPU."""
    return resolve_device()


def budget(cpu, gpu):
    """How much work a cell does: ``cpu`` on a CPU, ``gpu`` on a GPU."""
    return gpu if device().type == "cuda" else cpu
