"""Finding and reading head models: the built-in ``head.npz``, real FLAME files and what FLAME's
users keep beside them (68-landmark embedding, masks, UV), ICT-FaceKit and GNM Head."""

import os
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from course import other_heads, safe_pickle
from course.files import DATA

BUILT_IN = DATA / "head.npz"
REQUIRED = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
FLAME_SHAPE_COMPONENTS = 300  # FLAME files hold identity first, then 100 expressions
PARENTS = (-1, 0, 1, 1, 1)  # of root, neck, jaw, left eye, right eye

# equal letters are equal numbers: V vertices, F triangles, C components, T texture coordinates
SHAPES = {
    "v_template": ("V", 3),
    "f": ("F", 3),
    "shapedirs": ("V", 3, "C"),
    "posedirs": ("V", 3, 36),
    "J_regressor": (5, "V"),
    "kintree_table": (2, 5),
    "weights": ("V", 5),
    "vt": ("T", 2),
    "ft": ("F", 3),
    "static_lmk_faces_idx": (51,),
    "static_lmk_bary_coords": (51, 3),
    "dynamic_lmk_faces_idx": (79, 17),
    "dynamic_lmk_bary_coords": (79, 17, 3),
    "ao": ("V",),
    "albedo_mean": ("R", "R", 3),
    "albedo_dirs": ("A", "Q", "Q", 3),
    "albedo_names": ("A",),
}
INDICES = {"f": "v_template", "ft": "vt", "static_lmk_faces_idx": "f", "dynamic_lmk_faces_idx": "f"}
NOT_MODELS = ("carried", "embedding", "texture", "mask", "albedo", "landmark", "contour")


def find(path=None):
    """The model file to use: ``path``, else ``$COURSE_FLAME``, else the newest file in
    ``data/flame/``, else the built-in head. Raises FileNotFoundError with what to do."""
    chosen = path or os.environ.get("COURSE_FLAME")
    if chosen:
        chosen = Path(chosen).expanduser()
        if chosen.is_dir():
            found = _model_files(chosen)
            if not found:
                raise FileNotFoundError(f"There is no FLAME .pkl or .npz file, no gnm_head.npz and "
                                        f"no ICT-FaceKit in {chosen}.")  # fmt: skip
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
    """Head models in a folder, the best last: FLAME before other heads; for both sexes, newest
    year, newest file."""
    files = [p for kind in ("*.pkl", "*.npz") for p in Path(folder).glob(kind)]
    files = [p for p in files if not any(word in p.name.lower() for word in NOT_MODELS)]
    inside = (other_heads.ict_folder(p) for p in (folder, *Path(folder).glob("*/")))
    files += {p for p in inside if p is not None}

    def rank(path):
        year = re.search(r"20\d\d", path.name)
        one_sex = bool(re.search(r"male", path.name.lower()))
        flame = not path.is_dir() and "gnm" not in path.name.lower()
        return (flame, not one_sex, int(year[0]) if year else 0, path.stat().st_mtime, path.name)

    return sorted(files, key=rank)


def read(path):
    """Read a model file into a dict of plain numpy arrays with FLAME's keys.

    Other heads than FLAME come with their ``licence`` and ``name``, and without the joints that
    they have not: see ``head_completion.complete``. Raises ValueError with one sentence that says
    what is wrong with the file.
    """
    path = Path(path)
    if path.is_dir():
        model = other_heads.read_ict(path)
        check(path, model)
        return model
    model = _read_npz(path) if path.suffix == ".npz" else safe_pickle.load(path)
    if not isinstance(model, dict):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a FLAME model.")
    if "template_vertex_positions" in model:
        model = other_heads.read_gnm(path, model)
    missing = [key for key in REQUIRED if model.get(key) is None]
    if missing:
        raise ValueError(f"{path} is not a FLAME model: it lacks {', '.join(missing)}.")
    check(path, model)
    return model


def companions(path, model):
    """What lies beside a model file; other heads than FLAME have no companions."""
    return {} if "licence" in model else read_companions(path.parent, model)


def read_companions(folder, model):
    """What lies beside a real FLAME file, with the built-in head's keys; maybe an empty dict.

    Landmarks: DECA's ``landmark_embedding.npy``, or RingNet's ``flame_static_embedding.pkl`` and
    ``flame_dynamic_embedding.npy``. Masks: ``FLAME_masks.pkl``. UV: ``FLAME_texture.npz``.
    """
    found = {}
    for path in sorted(Path(folder).glob("*")):
        name = path.name.lower()
        if "embedding" in name and "mediapipe" not in name:
            found.update(_embedding(path))
        elif "mask" in name and path.suffix == ".pkl":
            found.update(_masks(path, len(model["v_template"])))
        elif ("texture" in name or "albedo" in name) and path.suffix == ".npz":
            arrays = _read_npz(path, ("vt", "ft"))
            found.update(arrays if len(arrays) == 2 else {})
    check(folder, {**model, **found})
    if all(key in found for key in SHAPES if "_lmk_" in key):
        rows = _contour_order(model, found)
        for key in ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"):
            found[key] = found[key][rows]
        return found
    return {key: value for key, value in found.items() if "_lmk_" not in key}


def _embedding(path):
    if path.suffix not in (".npy", ".npz", ".pkl"):
        return {}
    arrays = _read_npz(path) if path.suffix == ".npz" else safe_pickle.load(path, tensors=True)
    if not isinstance(arrays, dict):
        raise ValueError(f"{path} holds no landmark embedding.")
    part = "dynamic" if "dynamic" in path.name.lower() else "static"
    renamed = {"lmk_face_idx": f"{part}_lmk_faces_idx", "lmk_b_coords": f"{part}_lmk_bary_coords"}
    arrays = {renamed.get(key, key): np.asarray(value) for key, value in arrays.items()}
    return {key: arrays[key] for key in SHAPES if "_lmk_" in key and key in arrays}


def _contour_order(model, embedding):
    """Rows of a contour table put in order of yaw, -39…39 degrees.

    FLAME's users store 0…39, then -1…-39, and codes differ in the sign. So the geometry decides:
    turning to the picture's right, the contour of that far cheek slides forward.
    """
    corners = np.asarray(model["f"], np.int64)[embedding["dynamic_lmk_faces_idx"].astype(np.int64)]
    weights = embedding["dynamic_lmk_bary_coords"][..., None]
    depth = (np.asarray(model["v_template"])[corners] * weights).sum(2)[..., 2]
    lead = depth[:, 9:].mean(1) - depth[:, :8].mean(1)  # the picture's right before its left
    rising, halves = np.arange(-39, 40), np.r_[0:40, -1:-40:-1]
    yaw = max((rising, -rising, halves, -halves), key=lambda degrees: float(lead @ degrees))
    return np.argsort(yaw)


def _masks(path, vertices):
    """FLAME_masks.pkl: lists of vertices by name, as booleans with the names that we use."""
    lists = safe_pickle.load(path)
    parts = {"face": ["face"], "eyes": ["left_eyeball", "right_eyeball"], "lips": ["lips"],
             "neck": ["neck"], "scalp": ["scalp"], "ears": ["left_ear", "right_ear"]}  # fmt: skip
    found = {}
    for name, sources in parts.items():
        if isinstance(lists, dict) and all(source in lists for source in sources):
            chosen = np.concatenate([np.asarray(lists[s]).ravel() for s in sources]).astype(int)
            if len(chosen) and not 0 <= chosen.min() <= chosen.max() < vertices:
                raise ValueError(f"{path} belongs to another model: it names vertices beyond ours.")
            found[f"mask_{name}"] = np.isin(np.arange(vertices), chosen)
    return found


def _read_npz(path, keys=None):
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if keys is None or key in keys}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or not an .npz file ({error}).") from None


def check(path, model):
    """Compare a model's arrays with SHAPES and INDICES; the ValueError names the first fault."""
    sizes = {}
    wanted = SHAPES | {key: ("V",) for key in model if key.startswith("mask_")}
    for key, shape in wanted.items():
        if key not in model:
            continue
        got = np.shape(model[key])
        fits = len(got) == len(shape)
        for size, here in zip(shape, got, strict=False):
            fits &= here == (sizes.setdefault(size, here) if isinstance(size, str) else size)
        if not fits:
            wish = ", ".join(str(sizes.get(size, size)) for size in shape)
            raise ValueError(f"{path}: {key} has shape {got}, but ({wish}) is needed.")
        values = np.asarray(model[key])
        if values.dtype.kind not in ("U" if key.endswith("names") else "fiub"):
            raise ValueError(f"{path}: {key} holds {values.dtype} where numbers are needed.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{path}: {key} holds NaN or infinite numbers.")
    for key, target in INDICES.items():
        if key in model:
            values, count = np.asarray(model[key]), len(model.get(target, ()))
            if values.size == 0 or not 0 <= int(values.min()) <= int(values.max()) < count:
                raise ValueError(f"{path}: {key} points outside 0…{count - 1} of {target}.")
    if "J_regressor" not in model:  # yet: see head_completion
        return
    parents = np.asarray(model["kintree_table"])[0, 1:].astype(np.int64).tolist()
    if parents != list(PARENTS[1:]):
        raise ValueError(f"{path}: the joints hang on {parents}, but FLAME's on {PARENTS[1:]}.")
    if not 0 <= int(model.get("n_shape", 0)) <= sizes["C"]:
        raise ValueError(f"{path}: n_shape is not a number of the {sizes['C']} components.")
