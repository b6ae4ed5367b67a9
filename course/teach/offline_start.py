"""Set the course up from this folder, without a network, and open the first notebook.

    python start.py            set up if that was not done yet, then open JupyterLab
    python start.py --check    set up, then say what is there instead of opening anything

Copied into every folder that ``python -m course offline`` makes; needs Python alone.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COURSE, WHEELS = HERE / "face-course", HERE / "wheels"
PYTHON = COURSE / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
READY = COURSE / ".venv" / ".installed"


def fits():
    """Whether the wheels were fetched for this version of Python."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return any(f"-{tag}-" in wheel.name for wheel in WHEELS.glob("torch-*.whl"))


def offered():
    """The versions of Python that there are wheels for, as text."""
    tags = {wheel.name.split("-")[2] for wheel in WHEELS.glob("torch-*.whl")}
    return " or ".join(sorted(f"3.{tag[3:]}" for tag in tags))


def set_up():
    """Make ``.venv`` beside the course and fill it from the wheels."""
    print("Setting up; this takes a few minutes, once …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(COURSE / ".venv")], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
           "--no-index", "--find-links", str(WHEELS)]  # fmt: skip
    subprocess.run([*pip, "-r", str(COURSE / "requirements.lock")], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(COURSE)], check=True)
    READY.touch()


def main():
    if not READY.exists():
        if not fits():
            mine = f"{sys.version_info.major}.{sys.version_info.minor}"
            return f"The wheels here are for Python {offered()}; this is {mine}. Use that one."
        try:
            set_up()
        except subprocess.CalledProcessError as error:
            return f"Setting up stopped ({error}). The lines above say why; then start it again."
    if "--check" in sys.argv:
        return subprocess.run([str(PYTHON), "-m", "course", "doctor"], check=False).returncode
    first = str(COURSE / "notebooks" / "00_start_here.ipynb")
    return subprocess.run([str(PYTHON), "-m", "jupyter", "lab", first], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped; start it again whenever you like.")
