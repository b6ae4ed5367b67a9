"""Open heads that are no FLAME, read as if they were: ICT-FaceKit and GNM Head.

Both become the dict of arrays that ``FLAME`` takes. What they lack of FLAME's five joints is left
out here and carried over from the built-in head (``head_completion``): ICT-FaceKit has no joints at
all, GNM Head has root, neck and eyes, but no jaw.
"""

import json
import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from course.files import cached_arrays, quiet

NEUTRAL = "generic_neutral_mesh.obj"
ICT_LICENCE = "ICT-FaceKit, © USC Institute for Creative Technologies, MIT licence"
GNM_LICENCE = "GNM Head, © Google LLC, Apache licence 2.0"
CENTIMETRES = 0.01
KINTREE = np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]])
# ICT-FaceKit's materials, as parts of the built-in head; the glassy layers on the eyes are left out
MATERIALS = {"M_Face": 0, "M_BackHead": 0, "M_ScleraLeft": 1, "M_IrisLeft": 1, "M_ScleraRight": 2,
             "M_IrisRight": 2, "M_Teeth": 3, "M_GumsTongue": 5}  # fmt: skip
# GNM's names of the pieces of its mesh, likewise
COMPONENTS = {"skin": 0, "left_eye": 1, "right_eye": 2, "upper_teeth_and_gums": 3,
              "lower_teeth_and_gums": 4, "tongue": 5}  # fmt: skip
GNM_KEYS = ("template_vertex_positions", "vertex_identity_basis", "expression_basis", "triangles",
            "skinning_weights", "joint_parent_indices", "joint_regressor",
            "template_joint_positions")  # fmt: skip


def ict_folder(folder):
    """Where the OBJ files are: the folder itself or its ``FaceXModel``; None without them."""
    places = (Path(folder), Path(folder) / "FaceXModel")
    return next((p for p in places if (p / NEUTRAL).is_file()), None)


def read_ict(folder):
    """ICT-FaceKit (Li et al., CVPR 2020) from its folder of OBJ files.

    Identity and expressions are the OBJs' differences to the neutral one, in metres; an expression
    of 1 is the whole of it. Raises ValueError with one sentence when a file does not fit.
    """
    neutral, names = folder / NEUTRAL, _expressions(folder)
    identities = sorted(p for p in folder.glob("identity*.obj") if p.stem[8:].isdigit())
    if not identities or not names:
        raise ValueError(f"{folder} holds a neutral mesh, but no identity or expression OBJ files.")
    files = [neutral, *identities, *(folder / f"{name}.obj" for name in names)]
    missing = [p.name for p in files if not p.is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing[:3])}, which its list names.")
    key = repr([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    found = cached_arrays(folder / "ict_facekit.carried.npz", key, lambda: _ict(files))
    return {**found, "n_shape": len(identities), "expression_names": np.array(names),
            "expression_one_way": np.ones(len(names), bool), "licence": ICT_LICENCE,
            "name": "ICT-FaceKit"}  # fmt: skip


def _expressions(folder):
    """Names of the expressions: upstream's list, or every OBJ that is no identity."""
    listed = folder / "vertex_indices.json"
    if listed.is_file():
        try:
            return [str(name) for name in json.loads(listed.read_text("utf-8"))["expressions"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{listed} is damaged: it names no expressions ({error}).") from None
    stems = (p.stem for p in sorted(folder.glob("*.obj")) if p.name != NEUTRAL)
    return [stem for stem in stems if not re.fullmatch(r"identity\d+", stem)]


def _ict(files):
    """Neutral mesh and differences of what is shown of the head: arrays with FLAME's keys."""
    rest = _vertices(files[0])
    triangles, part = _triangles(files[0], len(rest))
    moves = np.empty((len(files) - 1, *rest.shape), np.float32)
    for k, path in enumerate(tqdm(files[1:], "reading OBJ files", disable=quiet())):
        vertices = _vertices(path)
        if vertices.shape != rest.shape:
            raise ValueError(f"{path} has {len(vertices)} vertices, the neutral mesh {len(rest)}.")
        moves[k] = vertices - rest
    jaw = [k for k, path in enumerate(files[1:]) if path.stem == "jawOpen"]
    if jaw:  # teeth and gums that the opening jaw takes along are the lower ones
        drop, inside = np.linalg.norm(moves[jaw[0]], axis=1), part >= 3
        lower = inside & (drop > 0.5 * drop[inside].max(initial=0))
        part[(part == 3) & lower] = 4
        part[(part == 5) & ~lower] = 3
    kept = np.unique(triangles)
    place = np.full(len(rest), -1)
    place[kept] = np.arange(len(kept))
    return {"v_template": (CENTIMETRES * rest[kept]).astype(np.float32), "f": place[triangles],
            "part": part[kept], "kintree_table": KINTREE,
            "shapedirs": (CENTIMETRES * moves[:, kept]).transpose(1, 2, 0)}  # fmt: skip


def _vertices(path):
    rows = [line[2:] for line in path.read_bytes().split(b"\n") if line.startswith(b"v ")]
    try:
        return np.array(b" ".join(rows).split(), float).reshape(-1, 3)
    except ValueError:
        raise ValueError(f"{path} is damaged: its vertices are no rows of three numbers.") from None


def _triangles(path, vertices):
    """Triangles (F, 3) of the materials that we show, and each vertex's part (V,)."""
    part, shown, found = np.zeros(vertices, np.int8), 0, []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if line.startswith("usemtl "):
            shown = MATERIALS.get(line.split()[1])
        elif line.startswith("f ") and shown is not None:
            corners = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
            found += [(corners[0], *corners[k : k + 2]) for k in range(1, len(corners) - 1)]
            part[corners] = shown
    if not found:
        raise ValueError(f"{path} holds no faces of the head.")
    return np.array(found), part


def read_gnm(path, arrays):
    """GNM Head from the arrays of its ``gnm_head.npz``, by the keys of its public code.

    Identity (I, V, 3) and expression (E, V, 3) bases, in metres, of codes with unit variance.
    Root, neck and eyes are its four joints, put where they are in the template; correctives of the
    root, which FLAME has not, are left out. Raises ValueError when something does not fit.
    """
    missing = [key for key in GNM_KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{path} is not a GNM Head: it lacks {', '.join(missing)}.")
    template = np.asarray(arrays["template_vertex_positions"], np.float32)
    bases = [
        np.asarray(arrays[k], np.float32) for k in ("vertex_identity_basis", "expression_basis")
    ]
    weights, regressor = (np.asarray(arrays[k], float) for k in ("skinning_weights",
                                                                 "joint_regressor"))  # fmt: skip
    parents = np.asarray(arrays["joint_parent_indices"]).astype(int).ravel()
    wanted = {"template_vertex_positions": (len(template), 3),
              "vertex_identity_basis": (len(bases[0]), len(template), 3),
              "expression_basis": (len(bases[1]), len(template), 3),
              "skinning_weights": (4, len(template)), "joint_regressor": (4, len(template)),
              "template_joint_positions": (4, 3)}  # fmt: skip
    for key, shape in wanted.items():
        if np.shape(arrays[key]) != shape:
            raise ValueError(f"{path}: {key} has shape {np.shape(arrays[key])}, not {shape}.")
    if parents[1:].tolist() != [0, 1, 1]:
        raise ValueError(f"{path}: root, neck and two eyes are needed, but the joints hang on "
                         f"{parents.tolist()}.")  # fmt: skip
    joints = np.asarray(arrays["template_joint_positions"], float)
    eyes = (2, 3) if joints[2, 0] > joints[3, 0] else (3, 2)  # the left eye, at the picture's right
    order = [0, 1, *eyes]
    places = [0, 1, 3, 4]  # FLAME's numbers of those joints
    skinning, rows = np.zeros((len(template), 5)), np.zeros((5, len(template)))
    skinning[:, places] = weights[order].T / np.maximum(weights.sum(0), 1e-9)[:, None]
    for place, joint in zip(places, order, strict=True):
        held = np.flatnonzero(regressor[joint])
        rows[place, held] = placed(regressor[joint, held], template[held], joints[joint])
    correctives = np.zeros((len(template), 3, 4, 9), np.float32)
    if "pose_correctives_regressor" in arrays:
        table = np.asarray(arrays["pose_correctives_regressor"]).reshape(4, 9, -1, 3)
        correctives[:, :, [0, 2, 3]] = table[order[1:]].transpose(2, 3, 0, 1)
    found = {"v_template": template, "f": arrays["triangles"], "kintree_table": KINTREE,
             "shapedirs": np.concatenate([b.transpose(1, 2, 0) for b in bases], 2),
             "n_shape": len(bases[0]), "posedirs": correctives.reshape(-1, 3, 36),
             "J_regressor": rows, "weights": skinning, "licence": GNM_LICENCE, "name": "GNM Head",
             **_gnm_parts(arrays)}  # fmt: skip
    if "expression_names" in arrays:
        found["expression_names"] = np.asarray(arrays["expression_names"]).astype(str)
    return found


def _gnm_parts(arrays):
    """Each vertex's part, by the groups that are named after the pieces of the mesh."""
    if not {"vertex_groups", "vertex_group_names"} <= set(arrays):
        return {}
    names = np.asarray(arrays["vertex_group_names"]).astype(str).tolist()
    if not set(COMPONENTS) <= set(names):
        return {}
    part = np.zeros(np.shape(arrays["vertex_groups"])[1], np.int8)
    for name, number in COMPONENTS.items():
        part[np.asarray(arrays["vertex_groups"])[names.index(name)] > 0.5] = number
    return {"part": part}


def placed(weights, points, goal):
    """Weights (n,) nearest to the given ones that add up to 1 and put Σ w points at ``goal``."""
    left = np.vstack([np.asarray(points, float).T, np.ones(len(points))])
    return weights + np.linalg.lstsq(left, np.r_[goal, 1] - left @ weights, rcond=None)[0]
