"""Finding and reading head models: the built-in ``head.npz`` and real FLAME files.

FLAME's pickles hold chumpy arrays and scipy matrices. A pickle can run any program while it is
read, so it goes through an unpickler that knows numpy, scipy.sparse and a stand-in for chumpy.
"""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse

from course.files import DATA

BUILT_IN = DATA / "head.npz"
REQUIRED = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
FLAME_SHAPE_COMPONENTS = 300  # FLAME files hold identity first, then 100 expressions


class ChumpyArray:
    """Stands in for ``chumpy.ch.Ch``: keeps the array, knows nothing of derivatives."""

    def __init__(self, *args):
        self.array = np.asarray(args[0]) if args else None

    def __setstate__(self, state):
        self.array = np.asarray(state["x"] if isinstance(state, dict) else state)


_SPARSE = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("chumpy.ch", "Ch"): ChumpyArray,
    ("chumpy", "Ch"): ChumpyArray,
    ("_codecs", "encode"): __import__("_codecs").encode,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_core, "_reconstruct"] = np._core.multiarray._reconstruct
    _ALLOWED[_core, "scalar"] = np._core.multiarray.scalar
for _kind in _SPARSE:
    for _module in ("scipy.sparse", f"scipy.sparse.{_kind[:3]}", f"scipy.sparse._{_kind[:3]}"):
        _ALLOWED[_module, _kind] = getattr(scipy.sparse, _kind)


class RestrictedUnpickler(pickle.Unpickler):
    """Builds numpy arrays, scipy matrices and chumpy stand-ins; refuses everything else by name."""

    def find_class(self, module, name):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise ValueError(
                f"the file asks for {module}.{name}, which no FLAME file needs; it was refused "
                "and nothing in it was run"
            ) from None


def find(path=None):
    """The model file to use: ``path``, else ``$COURSE_FLAME``, else the newest file in
    ``data/flame/``, else the built-in head. Raises FileNotFoundError with what to do."""
    chosen = path or os.environ.get("COURSE_FLAME")
    if chosen:
        chosen = Path(chosen).expanduser()
        if chosen.is_dir():
            found = _model_files(chosen)
            if not found:
                raise FileNotFoundError(f"There is no FLAME .pkl or .npz file in {chosen}.")
            return found[-1]
        if not chosen.is_file():
            raise FileNotFoundError(f"There is no model file {chosen}.")
        return chosen
    found = _model_files(DATA / "flame")
    if found:
        return found[-1]
    if not BUILT_IN.is_file():
        raise FileNotFoundError(f"{BUILT_IN} is missing; type: python -m course build-head")
    return BUILT_IN


def _model_files(folder):
    """FLAME model files in a folder, oldest first (the embedding and texture files are not)."""
    files = [p for kind in ("*.pkl", "*.npz") for p in Path(folder).glob(kind)]
    others = ("embedding", "texture", "mask", "albedo")
    files = [p for p in files if not any(word in p.name.lower() for word in others)]
    return sorted(files, key=lambda p: (p.stat().st_mtime, p.name))


def read(path):
    """Read a model file into a dict of plain numpy arrays with FLAME's keys.

    Raises ValueError with one sentence that says what is wrong with the file.
    """
    path = Path(path)
    raw = _read_npz(path) if path.suffix == ".npz" else _read_pickle(path)
    model = {key: _plain(value) for key, value in raw.items()}
    missing = [key for key in REQUIRED if model.get(key) is None]
    if missing:
        raise ValueError(f"{path} is not a FLAME model: it lacks {', '.join(missing)}.")
    _check_shapes(path, model)
    return model


def read_embedding(folder):
    """The 68-landmark embedding that FLAME users keep beside the model, or an empty dict."""
    for path in sorted(Path(folder).glob("*landmark*embedding*")):
        if path.suffix == ".npz":
            return _read_npz(path)
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return _read_npy_dict(path, file)
    return {}


def _read_npy_dict(path, file):
    """A .npy that holds one pickled dict: numpy's header, then a pickle we read with care."""
    try:
        version = np.lib.format.read_magic(file)
        reader = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                  else np.lib.format.read_array_header_2_0)  # fmt: skip
        reader(file)
        content = RestrictedUnpickler(file, encoding="latin1").load()
        return {str(k): _plain(v) for k, v in dict(content.item()).items()}
    except (ValueError, EOFError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} is damaged or not an .npz file ({error}).") from None


def _read_pickle(path):
    try:
        with path.open("rb") as file:
            content = RestrictedUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise ValueError(f"{path} is not a plain FLAME pickle: {error}.") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, IndexError, KeyError,
            MemoryError, OSError, OverflowError, UnicodeDecodeError) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is cut short or is not a pickle ({reason}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a FLAME model.")
    return content


def _plain(value):
    if isinstance(value, ChumpyArray):
        return value.array
    if scipy.sparse.issparse(value):
        return value.toarray()
    return np.asarray(value) if isinstance(value, list | tuple) else value


def _check_shapes(path, model):
    vertices = np.shape(model["v_template"])[0] if np.ndim(model["v_template"]) else 0
    joints = np.shape(model["J_regressor"])[0] if np.ndim(model["J_regressor"]) else 0
    expected = {
        "v_template": (vertices, 3),
        "f": (None, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "kintree_table": (2, joints),
        "weights": (vertices, joints),
    }
    for key, wanted in expected.items():
        got = np.shape(model[key])
        if len(got) != len(wanted) or any(
            w is not None and w != g for w, g in zip(wanted, got, strict=True)
        ):
            wish = "(" + ", ".join("any" if w is None else str(w) for w in wanted) + ")"
            raise ValueError(f"{path}: {key} has shape {got}, but {wish} is needed.")
    if joints != 5:
        raise ValueError(f"{path} has {joints} joints; FLAME has 5 (root, neck, jaw, two eyes).")
    faces = np.asarray(model["f"])
    if faces.size == 0 or int(faces.min()) < 0 or int(faces.max()) >= vertices:
        raise ValueError(f"{path}: f names vertices outside 0…{vertices - 1}.")
