"""``python -m course doctor``: what is here, what is missing, and the one line that gets it."""

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

PYTHON_OLDEST = (3, 11)
NEEDED = ("torch", "numpy", "scipy", "numba", "matplotlib", "plotly", "ipywidgets",
          "opencv-python", "scikit-image", "pillow", "imageio", "trimesh", "rtree",
          "tqdm", "joblib")  # fmt: skip
MEMORY_NEEDED = 3  # GB, for one reconstruction


@dataclass
class Row:
    """One line of the table. ``state`` is ok, missing (the course cannot run) or optional."""

    name: str
    state: str
    found: str
    remedy: str = ""


def add_arguments(parser):
    parser.set_defaults()


def run(args):
    """Print the table; exit code 0 when the course can run, else 1."""
    rows = examine()
    print(table(rows))
    missing = [row.name for row in rows if row.state == "missing"]
    if missing:
        print(f"\nThe course cannot run yet: {', '.join(missing)} missing.")
        return 1
    print("\nThe course can run here.")
    return 0


def examine():
    """All rows; nothing here may fail because something is absent."""
    rows = [_python()]
    rows += [_package(name) for name in NEEDED]
    rows += [_device(), _pytorch3d(), _face_alignment(), _flame(), *_networks(), _memory()]
    return rows


def table(rows):
    """The rows as text, one remedy under each thing that is missing."""
    wide = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        mark = {"ok": "ok      ", "optional": "optional", "missing": "MISSING "}[row.state]
        lines.append(f"{row.name:{wide}}  {mark}  {row.found}")
        if row.remedy:
            lines.append(f"{'':{wide}}            → {row.remedy}")
    return "\n".join(lines)


def _python():
    version = platform.python_version()
    if sys.version_info < PYTHON_OLDEST:
        return Row("Python", "missing", version, "make PYTHON=python3.12 lab")
    return Row("Python", "ok", f"{version} on {platform.system()} {platform.machine()}")


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name):
    version = _version(name)
    if version is None:
        return Row(name, "missing", "not installed", f"{_pip()} install {name}")
    if name == "opencv-python":
        try:
            import cv2

            if not hasattr(cv2, "CascadeClassifier"):
                return Row(name, "missing", f"{version} has no face detector",
                           f'{_pip()} install "opencv-python<5"')  # fmt: skip
        except ImportError as error:
            return Row(name, "missing", str(error), "sudo apt-get install -y libgl1 libglib2.0-0")
    return Row(name, "ok", version)


def _pip():
    return f"{os.path.relpath(sys.executable)} -m pip"


def _device():
    try:
        import torch
    except ImportError:
        return Row("device", "missing", "unknown without torch")
    if torch.cuda.is_available():
        return Row("device", "ok", f"CUDA: {torch.cuda.get_device_name(0)}")
    return Row("device", "ok", f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads")


def _pytorch3d():
    version = _version("pytorch3d")
    if version:
        return Row("pytorch3d", "ok", version)
    return Row("pytorch3d", "optional", "not installed; our own rasterizer is used",
               "conda env create -f environment.yml")  # fmt: skip


def _face_alignment():
    if _version("face-alignment") is None:
        return Row("face-alignment", "optional", "not installed; the built-in landmarks are used",
                   f"{_pip()} install face-alignment")  # fmt: skip
    try:
        from course.photo import face_alignment_weights

        weights = face_alignment_weights()
    except ImportError:
        weights = None
    if weights:
        return Row("face-alignment", "ok", f"weights at {weights}")
    return Row("face-alignment", "optional", "weights not on disk; the built-in landmarks are used",
               'python -c "import face_alignment as f; '
               "f.FaceAlignment(f.LandmarksType.TWO_D, device='cpu', compile=False)\"")  # fmt: skip


def _flame():
    try:
        from course import flame_files

        path = flame_files.find()
        model = flame_files.read(path)
        if path != flame_files.BUILT_IN:
            from course import head_completion

            ours = flame_files.read(flame_files.BUILT_IN)
            beside = flame_files.companions(path, model)
            more = head_completion.state(path, model, ours, beside)
            if more != "complete" and "weights" in model and not model["weights"][:, 2].any():
                more = f"jaw joint, {more}"  # GNM Head has joints, but no jaw
    except (ImportError, OSError, ValueError) as error:
        remedy = "python -m course build-head"
        if os.environ.get("COURSE_FLAME"):
            remedy = "unset COURSE_FLAME, or name a head's file in it"
        elif str(Path("data", "flame")) in str(error):
            remedy = "take that file out of data/flame/, or bring it anew"
        return Row("head", "missing", str(error), remedy)
    if path == flame_files.BUILT_IN:
        return Row("head", "ok", "built-in (data/head.npz); real FLAME goes into data/flame/")
    whose = str(model.get("licence", "FLAME, whose licence is yours to keep"))
    return Row("head", "ok", f"{path} ({whose}); {more}")


def _weights(name, load, path, use, misfit=None):
    """A network that ships; without it the course runs, but for ``use``. ``misfit(network)`` is
    None, or says what it means for the head in use that it was made for another one."""
    try:
        network = load()
    except (ImportError, OSError, ValueError) as error:
        state = "optional" if use else "missing"
        return Row(name, state, f"{error}{use}", f"python -m course train {name}")
    found = f"{path.stat().st_size / 1e6:.1f} MB of weights"
    wrong = misfit(network) if misfit else None
    return Row(name, "optional", f"{found}, but {wrong}") if wrong else Row(name, "ok", found)


def _networks():
    try:
        from course import detail, landmarks, losses, train_encoder
        from course.encoder import FaceModel
        from course.flame import FLAME
        from course.flame_files import BUILT_IN
    except ImportError as error:
        return [Row("networks", "missing", f"cannot be read: {error}", f"{_pip()} install torch")]

    def detail_model():  # of our own head: another one might first have to be registered
        return detail.DetailModel.load(FLAME.load(BUILT_IN, "cpu"), device="cpu")

    def no_start(model):
        return _misfit(model.config["sizes"], "fits start from the mean face")

    def no_detail(model):
        return _misfit({"expression": model.config["n_expression"]}, "its faces get no detail")

    return [
        _weights("landmarks", landmarks.load, landmarks.WEIGHTS, ""),
        _weights("encoder", lambda: FaceModel.load(train_encoder.WEIGHTS, device="cpu"),
                 train_encoder.WEIGHTS, " Fits start from the mean face.", no_start),
        _weights("identity", losses.IdentityNet.load, losses.IDENTITY,
                 " Notebook 04 needs it."),
        _weights("detail", detail_model, detail.WEIGHTS, " reconstruct --detail needs it.",
                 no_detail),
    ]  # fmt: skip


def _misfit(sizes, means):
    """What it ``means`` that codes of these sizes are not those of the head in use, or None."""
    from course import flame_files

    try:
        path = flame_files.find()
        model = flame_files.read(path)
    except (OSError, ValueError):  # the head's own row says so
        return None
    count = model["shapedirs"].shape[2]
    shape = int(model.get("n_shape", min(flame_files.FLAME_SHAPE_COMPONENTS, count)))
    own = {"shape": shape, "expression": count - shape}
    if all(sizes[name] == size for name, size in own.items() if name in sizes):
        return None
    return f"made for another head than {model.get('name', path.stem)}: {means}"


def _memory():
    free = _free_memory()
    disk = shutil.disk_usage(".").free / 1e9
    if free is None:
        return Row("memory", "ok", f"unknown; {disk:.0f} GB of disk free")
    found = f"{free:.1f} GB free; {disk:.0f} GB of disk free"
    if free < MEMORY_NEEDED:
        return Row("memory", "optional", found, "close other programs: a fit wants 3 GB")
    return Row("memory", "ok", found)


def _free_memory():
    """GB that a program can still take, or None where the system does not say."""
    try:
        import psutil  # comes with JupyterLab's kernel

        return psutil.virtual_memory().available / 1e9
    except ImportError:
        return None
